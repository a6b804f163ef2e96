//! What the packs of both copies hold, for whoever looks for the cause of a violation.

use std::fmt::Write as _;

use cairn_engine::error::Error;
use cairn_engine::index::catalog::list_packs;
use cairn_engine::pack::reader::PackReader;
use cairn_format::ids::ChunkId;
use cairn_format::pack::ChunkRef;

use super::Scene;
use super::site::Site;
use crate::lab::OWNER;

impl Scene {
    pub(super) fn draw(&self) -> String {
        let mut picture = String::new();
        for site in [&self.home, &self.replica].into_iter().filter(|site| site.is_there()) {
            if let Err(error) = self.draw_site(site, &mut picture) {
                let _ = writeln!(picture, "{}: {error}", site.place.name());
            }
        }
        picture
    }

    fn draw_site(&self, site: &Site, picture: &mut String) -> Result<(), Error> {
        let repository = self.world.try_open(site.truth(), OWNER, 51)?;
        let reader = PackReader::new(repository.store(), &repository.keys);
        for (id, (kind, bytes)) in list_packs(repository.vault())? {
            let place = site.place.name();
            let section = match reader.directory(kind, id, bytes, &repository.trust) {
                Ok(section) => section,
                Err(error) => {
                    let _ = writeln!(picture, "{place}: pack {}: {error}", id.short());
                    continue;
                }
            };
            let _ =
                writeln!(picture, "{place}: pack {} of session {:?}", id.short(), section.session);
            for frame in &section.frames {
                let (chunks, bases) = (names(&frame.chunks), names(&frame.bases));
                let _ = writeln!(picture, "  chunks {chunks}; bases {bases}");
            }
        }
        Ok(())
    }
}

fn names(chunks: &[ChunkRef]) -> String {
    let name = |chunk: &ChunkRef| ChunkId::short(&chunk.id);
    chunks.iter().map(name).collect::<Vec<_>>().join(" ")
}
