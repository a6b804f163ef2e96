//! Kinds of services.

use super::conditions::Condition;

/// What kind of service it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// Every call does what it says.
    Strong,
    /// Listings are in no order and repeat entries.
    Unordered,
    /// Calls fail, before or after they were carried out.
    Failing,
    /// Listings break off with an error.
    ListsBreak,
    /// Puts and deletions are carried out twice, the second time later, or late after they failed.
    Late,
    /// Gets return a flipped bit.
    Flipping,
    /// A put that fails, or whose process dies, leaves part of the object under its name.
    Torn,
    /// Puts are acknowledged and lost.
    Losing,
    /// Deletions are acknowledged and not carried out.
    Keeping,
    /// Objects are locked for a while: deletions are refused.
    Locked,
    /// Deleted and replaced objects stay as older versions until these are purged, and purges fail,
    /// before, after or in the middle of what they do, or carry part of it out late.
    Versioned,
    /// Deleted objects can be brought back for a while; older versions are not to be listed.
    SoftDelete,
    /// There are no conditional puts.
    Unconditional,
    /// The condition of a put is ignored: it replaces what is there.
    IgnoresCondition,
    /// A conditional put says that it was done where another object is, and does nothing.
    LiesAboutCondition,
    /// Listings go on to show what was deleted lately.
    Lingering,
    /// Listings lack what others changed lately.
    Stale,
    /// Listings lack a part without saying so.
    PagesLost,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Strong,
        Self::Unordered,
        Self::Failing,
        Self::ListsBreak,
        Self::Late,
        Self::Flipping,
        Self::Torn,
        Self::Losing,
        Self::Keeping,
        Self::Locked,
        Self::Versioned,
        Self::SoftDelete,
        Self::Unconditional,
        Self::IgnoresCondition,
        Self::LiesAboutCondition,
        Self::Lingering,
        Self::Stale,
        Self::PagesLost,
    ];

    /// Its name on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Unordered => "unordered",
            Self::Failing => "failing",
            Self::ListsBreak => "lists-break",
            Self::Late => "late",
            Self::Flipping => "flipping",
            Self::Torn => "torn",
            Self::Losing => "losing",
            Self::Keeping => "keeping",
            Self::Locked => "locked",
            Self::Versioned => "versioned",
            Self::SoftDelete => "soft-delete",
            Self::Unconditional => "unconditional",
            Self::IgnoresCondition => "ignores-condition",
            Self::LiesAboutCondition => "lies-about-condition",
            Self::Lingering => "lingering",
            Self::Stale => "stale",
            Self::PagesLost => "pages-lost",
        }
    }

    /// The profile of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// Whether listings show what they must by SPEC section 12. Where they do not, the repository
    /// may be no home copy: collections beside writers may lose data.
    #[must_use]
    pub const fn keeps_its_word(self) -> bool {
        !matches!(self, Self::Stale | Self::PagesLost)
    }

    /// Whether calls of an actor may fail for what the service does to that actor alone.
    #[must_use]
    pub const fn strikes_one(self) -> bool {
        matches!(self, Self::Failing | Self::ListsBreak | Self::Flipping | Self::Versioned)
    }

    /// Whether something is kept of what is deleted.
    pub(super) const fn keeps_versions(self) -> bool {
        matches!(self, Self::Versioned | Self::SoftDelete)
    }

    /// Whether that can be listed, and deleted for good.
    #[must_use]
    pub const fn shows_versions(self) -> bool {
        matches!(self, Self::Versioned)
    }

    /// What puts on a condition do; `None` where objects are kept in plain memory.
    pub(super) const fn condition(self) -> Option<Condition> {
        match self {
            Self::Unconditional => Some(Condition::Unknown),
            Self::IgnoresCondition => Some(Condition::Ignored),
            Self::LiesAboutCondition => Some(Condition::SaysDone),
            _ => None,
        }
    }

    /// Whether a put that fails leaves part of the object.
    pub(super) const fn tears(self) -> bool {
        matches!(
            self,
            Self::Torn | Self::Unconditional | Self::IgnoresCondition | Self::LiesAboutCondition
        )
    }
}
