/// What a packet says of congestion (RFC 3168): the two lowest bits of IPv4's type of service and of IPv6's traffic
/// class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// Its ends do not know of it: a queue that is too long drops it.
    #[default]
    NotCapable,
    /// Its ends understand a mark in place of a loss, ECT(1).
    Capable1,
    /// The same, ECT(0).
    Capable0,
    /// A queue on its way was too long.
    Experienced,
}

impl Ecn {
    /// What the lowest two bits of `byte` say.
    pub const fn from_bits(byte: u8) -> Self {
        match byte & 3 {
            0 => Self::NotCapable,
            1 => Self::Capable1,
            2 => Self::Capable0,
            _ => Self::Experienced,
        }
    }

    /// The two bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotCapable => 0,
            Self::Capable1 => 1,
            Self::Capable0 => 2,
            Self::Experienced => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_bits_are_nothing_to_it() {
        for byte in 0..=255 {
            assert_eq!(Ecn::from_bits(byte).bits(), byte & 3);
        }
    }
}
