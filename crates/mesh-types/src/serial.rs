use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The serial number of a roster: a whole number from 1 to 2^53-1, higher for every newer roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Serial(u64);

/// A number that is no serial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a serial: a whole number from 1 to 9007199254740991 (2^53-1)")]
pub struct ParseSerialError(String);

impl Serial {
    /// The first serial of a network.
    pub const FIRST: Self = Self(1);

    /// The highest serial: every JSON reader still tells it from its neighbours.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The serial after this one, or `None` at the end.
    pub fn next(self) -> Option<Self> {
        Self::try_from(self.0 + 1).ok()
    }
}

impl TryFrom<u64> for Serial {
    type Error = ParseSerialError;

    fn try_from(number: u64) -> Result<Self, ParseSerialError> {
        if number == 0 || number > Self::MAX.0 {
            return Err(ParseSerialError(number.to_string()));
        }
        Ok(Self(number))
    }
}

impl From<Serial> for u64 {
    fn from(serial: Serial) -> Self {
        serial.0
    }
}

impl FromStr for Serial {
    type Err = ParseSerialError;

    fn from_str(text: &str) -> Result<Self, ParseSerialError> {
        let number: u64 = text
            .parse()
            .map_err(|_| ParseSerialError(text.to_owned()))?;
        Self::try_from(number)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_between_one_and_the_largest_exact_json_number() {
        assert!("0".parse::<Serial>().is_err());
        assert!("9007199254740992".parse::<Serial>().is_err());
        assert!("-1".parse::<Serial>().is_err());
        assert_eq!("1".parse(), Ok(Serial::FIRST));
        assert_eq!("9007199254740991".parse(), Ok(Serial::MAX));
        assert_eq!(Serial::MAX.next(), None);
        assert_eq!(Serial::FIRST.next().map(Serial::get), Some(2));
    }
}
