//! Which way of cutting into chunks suits a file, told by its first bytes.
//!
//! Page files of databases, disk images and devices change in place: cutting at fixed multiples
//! of the page keeps an unchanged page in an unchanged chunk and needs no scan for boundaries.
//! Everything else may have bytes inserted, where only content-defined cuts find the rest again.
//! A wrong guess costs deduplication, never data, so the checks are made to be rarely wrong on
//! files that are not page files: those would lose most.

/// How a file is cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// By its content.
    Cdc,
    /// At multiples of a power of two no smaller than its pages.
    Aligned,
    /// At fixed multiples, without looking at all: block devices.
    Fixed,
}

/// Where the bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentKind {
    /// A regular file, whose length is known.
    File,
    /// A block device.
    Device,
    /// Standard input or a command's output, whose length is not known before its end.
    Stream,
}

/// As many of a file's first bytes should be given to [`detect`]; more are not looked at. Fewer
/// are allowed, for shorter files.
pub const HEAD_BYTES: usize = 64 << 10;

/// Shorter files are not taken for a raw disk image: a boot sector alone is no image.
const RAW_IMAGE_BYTES_MIN: u64 = 1 << 20;

/// Decides from the first bytes, the length and the kind; looks at nothing else.
///
/// `bytes` is the whole length; for a stream it is ignored.
#[must_use]
pub fn detect(head: &[u8], bytes: u64, kind: ContentKind) -> Profile {
    match kind {
        ContentKind::Device => Profile::Fixed,
        ContentKind::Stream => Profile::Cdc,
        ContentKind::File => {
            let head = head.get(..HEAD_BYTES).unwrap_or(head);
            let aligned = is_postgresql(head, bytes)
                || is_innodb(head, bytes)
                || is_sqlite(head, bytes)
                || is_image_format(head)
                || is_raw_image(head, bytes);
            if aligned { Profile::Aligned } else { Profile::Cdc }
        }
    }
}

fn bytes_at<const N: usize>(head: &[u8], offset: usize) -> Option<[u8; N]> {
    head.get(offset..)?.first_chunk().copied()
}

fn le16(head: &[u8], offset: usize) -> Option<u16> {
    bytes_at(head, offset).map(u16::from_le_bytes)
}

fn le32(head: &[u8], offset: usize) -> Option<u32> {
    bytes_at(head, offset).map(u32::from_le_bytes)
}

fn be16(head: &[u8], offset: usize) -> Option<u16> {
    bytes_at(head, offset).map(u16::from_be_bytes)
}

fn be32(head: &[u8], offset: usize) -> Option<u32> {
    bytes_at(head, offset).map(u32::from_be_bytes)
}

fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Relation and fork files of PostgreSQL: every page in sight has a sane header, or is all zero
/// as a page that was added and not yet used; one at least is not.
fn is_postgresql(head: &[u8], bytes: u64) -> bool {
    // `pd_pagesize_version` of the first page in use tells the page's length.
    let Some(page_bytes) = [8192, 16384, 32768, 4096].into_iter().find(|page_bytes| {
        head.chunks_exact(*page_bytes).find(|page| !all_zero(page)).is_some_and(is_postgresql_page)
    }) else {
        return false;
    };
    bytes.is_multiple_of(page_bytes as u64)
        && head.chunks_exact(page_bytes).all(|page| is_postgresql_page(page) || all_zero(page))
}

/// `PageHeaderData` of layout version 4 (PostgreSQL 8.3 and later), `storage/bufpage.h`.
fn is_postgresql_page(page: &[u8]) -> bool {
    const HEADER_BYTES: u16 = 24;
    const FLAGS: u16 = 0x0007;
    const VERSION: usize = 4;
    let field = |offset| le16(page, offset).unwrap_or(0);
    let (flags, lower, upper, special) = (field(10), field(12), field(14), field(16));
    usize::from(field(18)) == page.len() | VERSION
        && flags & !FLAGS == 0
        && HEADER_BYTES <= lower
        && lower <= upper
        && upper <= special
        && usize::from(special) <= page.len()
}

/// Tablespaces of InnoDB: the first page is the header of a space and repeats the space's id, the
/// second page counts as 1 in the same space (`fil0types.h`, `fsp0fsp.h`).
fn is_innodb(head: &[u8], bytes: u64) -> bool {
    const PAGE_NUMBER: usize = 4;
    const PAGE_TYPE: usize = 24;
    const TYPE_SPACE_HEADER: u16 = 8;
    const SPACE_ID: usize = 34;
    const HEADER_SPACE_ID: usize = 38;
    const SPACE_PAGES: usize = 46;

    let space = be32(head, SPACE_ID);
    if be32(head, PAGE_NUMBER) != Some(0)
        || be16(head, PAGE_TYPE) != Some(TYPE_SPACE_HEADER)
        || space.is_none()
        || be32(head, HEADER_SPACE_ID) != space
        || be32(head, SPACE_PAGES).is_none_or(|pages| pages == 0)
    {
        return false;
    }
    [16384, 8192, 4096, 32768, 2048, 1024].into_iter().any(|page_bytes| {
        bytes.is_multiple_of(page_bytes as u64)
            && be32(head, page_bytes + PAGE_NUMBER) == Some(1)
            && be32(head, page_bytes + SPACE_ID) == space
    })
}

/// SQLite databases (`sqlite.org/fileformat.html`).
fn is_sqlite(head: &[u8], bytes: u64) -> bool {
    let Some(page_bytes) =
        be16(head, 16).map(|raw| if raw == 1 { 1 << 16 } else { u64::from(raw) })
    else {
        return false;
    };
    head.starts_with(b"SQLite format 3\0")
        && page_bytes.is_power_of_two()
        && page_bytes >= 512
        && bytes.is_multiple_of(page_bytes)
}

/// Formats of virtual disks that keep blocks aligned.
fn is_image_format(head: &[u8]) -> bool {
    /// VMDK header flag: the grains are compressed and lie unaligned.
    const VMDK_COMPRESSED: u32 = 1 << 16;
    let qcow = head.starts_with(b"QFI\xfb") && matches!(be32(head, 4), Some(2 | 3));
    let vmdk = head.starts_with(b"KDMV")
        && matches!(le32(head, 4), Some(1..=3))
        && le32(head, 8).is_some_and(|flags| flags & VMDK_COMPRESSED == 0);
    let vdi = le32(head, 64) == Some(0xbeda_107f);
    let vhd = head.starts_with(b"conectix") || head.starts_with(b"vhdxfile");
    qcow || vmdk || vdi || vhd
}

/// Whole disks and file systems as files.
fn is_raw_image(head: &[u8], bytes: u64) -> bool {
    if bytes < RAW_IMAGE_BYTES_MIN || !bytes.is_multiple_of(4096) {
        return false;
    }
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..).is_some_and(|rest| rest.starts_with(magic))
    };
    let ext = at(1080, &[0x53, 0xef])
        && le32(head, 1048).is_some_and(|log_block| log_block <= 6)
        && le32(head, 1024).is_some_and(|inodes| inodes > 0);
    let gpt = at(512, b"EFI PART") || at(4096, b"EFI PART");
    let lvm = at(512, b"LABELONE");
    gpt || lvm
        || ext
        || at(0, b"XFSB")
        || at(0, b"LUKS\xba\xbe")
        || at(3, b"NTFS    ")
        || is_boot_record(head)
}

/// A master boot record: its signature, and partition entries that make sense.
fn is_boot_record(head: &[u8]) -> bool {
    if bytes_at(head, 510) != Some([0x55, 0xaa]) {
        return false;
    }
    let entries = head.get(446..510).unwrap_or_default().chunks_exact(16);
    let mut used = 0;
    for entry in entries {
        let status_sane = matches!(entry.first(), Some(0 | 0x80));
        let (start, sectors) = (le32(entry, 8).unwrap_or(0), le32(entry, 12).unwrap_or(0));
        match entry.get(4) {
            Some(0) if all_zero(entry) => {}
            Some(1..) if status_sane && start > 0 && sectors > 0 => used += 1,
            _ => return false,
        }
    }
    used > 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A heap page with `items` items, each with a few bytes of tuple.
    fn postgresql_page(page_bytes: u16, items: u16) -> Vec<u8> {
        let mut page = vec![0; usize::from(page_bytes)];
        let upper = page_bytes - items * 32;
        let header = [
            (10, 0x0004),
            (12, 24 + 4 * items),
            (14, upper),
            (16, page_bytes),
            (18, page_bytes | 4),
        ];
        page[..8].copy_from_slice(&0x0001_6b37_4d50_u64.to_le_bytes());
        for (offset, value) in header {
            page[offset..offset + 2].copy_from_slice(&u16::to_le_bytes(value));
        }
        page[usize::from(upper)..].fill(0xa7);
        page
    }

    fn innodb(page_bytes: usize, space: u32, pages: usize) -> Vec<u8> {
        let mut file = vec![0; page_bytes * pages];
        for (number, page) in (0_u32..).zip(file.chunks_exact_mut(page_bytes)) {
            page[..4].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
            page[4..8].copy_from_slice(&number.to_be_bytes());
            let kind: u16 = if number == 0 { 8 } else { 5 };
            page[24..26].copy_from_slice(&kind.to_be_bytes());
            page[34..38].copy_from_slice(&space.to_be_bytes());
        }
        file[38..42].copy_from_slice(&space.to_be_bytes());
        file[46..50].copy_from_slice(&(pages as u32).to_be_bytes());
        file
    }

    fn file(content: &[u8]) -> Profile {
        detect(content, content.len() as u64, ContentKind::File)
    }

    /// Noise that looks the same on every run.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn postgresql_files_are_aligned() {
        let page = postgresql_page(8192, 20);
        let mut relation = vec![page.clone(); 5].concat();
        assert_eq!(file(&relation), Profile::Aligned);
        assert_eq!(file(&page), Profile::Aligned, "a single page");
        relation.splice(0..0, vec![0; 8192]);
        assert_eq!(file(&relation), Profile::Aligned, "starting with an unused page");
        assert_eq!(file(&postgresql_page(16384, 3)), Profile::Aligned, "other page length");
        // An empty visibility map or free space map page.
        assert_eq!(file(&postgresql_page(8192, 0)), Profile::Aligned);
    }

    #[test]
    fn broken_pages_are_not_taken_for_postgresql() {
        let page = postgresql_page(8192, 20);
        let with = |offset: usize, value: u16| {
            let mut page = page.clone();
            page[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
            [postgresql_page(8192, 1), page].concat()
        };
        for (what, content) in [
            ("lower in the header", with(12, 23)),
            ("lower above upper", with(12, 8000)),
            ("upper above special", with(16, 100)),
            ("special beyond the page", with(16, 8193)),
            ("unknown flags", with(10, 8)),
            ("another version", with(18, 0x2003)),
            ("odd length", [page.clone(), vec![0; 100]].concat()),
            ("noise after one page", [page.clone(), noise(8192)].concat()),
            ("only zeros", vec![0; 65536]),
        ] {
            assert_eq!(file(&content), Profile::Cdc, "{what}");
        }
    }

    #[test]
    fn innodb_tablespaces_are_aligned() {
        for page_bytes in [4096, 8192, 16384, 32768] {
            assert_eq!(file(&innodb(page_bytes, 42, 7)), Profile::Aligned, "{page_bytes}");
        }
        assert_eq!(file(&innodb(16384, 0, 64)), Profile::Aligned, "the system tablespace");
        let mut other = innodb(16384, 42, 7);
        other[16384 + 37] ^= 1;
        assert_eq!(file(&other), Profile::Cdc, "second page of another space");
    }

    #[test]
    fn sqlite_and_disk_images_are_aligned() {
        let starting = |head: &[u8], bytes: usize| {
            let mut content = vec![0; bytes];
            content[..head.len()].copy_from_slice(head);
            content
        };
        let sqlite = starting(b"SQLite format 3\0\x10\x00", 8192);
        assert_eq!(file(&sqlite), Profile::Aligned);
        assert_eq!(file(&sqlite[..8000]), Profile::Cdc, "no whole pages");
        assert_eq!(file(&starting(b"SQLite format 3\0\x10\x01", 8192)), Profile::Cdc);
        assert_eq!(file(&starting(b"QFI\xfb\x00\x00\x00\x03", 4096)), Profile::Aligned);
        assert_eq!(file(&starting(b"QFI\xfb\x00\x00\x00\x09", 4096)), Profile::Cdc);
        assert_eq!(file(&starting(b"KDMV\x01\x00\x00\x00\x03", 4096)), Profile::Aligned);
        let compressed = b"KDMV\x03\x00\x00\x00\x01\x00\x01\x00";
        assert_eq!(file(&starting(compressed, 4096)), Profile::Cdc);

        let mut disk = vec![0; 1 << 20];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(file(&disk), Profile::Cdc, "signature without partitions");
        disk[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0]);
        assert_eq!(file(&disk), Profile::Aligned);
        assert_eq!(file(&disk[..4096]), Profile::Cdc, "only a boot sector");
        disk[446] = 7;
        assert_eq!(file(&disk), Profile::Cdc, "no such status");
    }

    #[test]
    fn devices_are_fixed_and_streams_are_not_looked_at() {
        let page = postgresql_page(8192, 20);
        assert_eq!(detect(&page, 8192, ContentKind::Device), Profile::Fixed);
        assert_eq!(detect(&[], 0, ContentKind::Device), Profile::Fixed);
        assert_eq!(detect(&page, 8192, ContentKind::Stream), Profile::Cdc);
    }

    #[test]
    fn text_and_nothing_are_content_defined() {
        assert_eq!(file(b""), Profile::Cdc);
        assert_eq!(
            file(&b"COPY public.orders (id, total) FROM stdin;\n".repeat(4096)),
            Profile::Cdc
        );
    }

    proptest! {
        #[test]
        fn random_bytes_are_content_defined(content in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            prop_assert_eq!(file(&content), Profile::Cdc);
            prop_assert_eq!(detect(&content, 1 << 30, ContentKind::File), Profile::Cdc);
        }
    }
}
