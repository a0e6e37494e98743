//! For which system a program is, by its first bytes.

use anyhow::{Context as _, bail, ensure};

/// A system that packages are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    os: Os,
    architecture: Architecture,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Os {
    Linux,
    Macos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    X86,
    Arm,
}

/// `LC_CODE_SIGNATURE` of Mach-O's loader.h.
const LC_CODE_SIGNATURE: u32 = 0x1d;

/// The length of Mach-O's 64-bit header, in bytes; the load commands follow.
const MACHO_HEADER_BYTES: usize = 32;

impl Target {
    /// Reads the header of an ELF or a 64-bit Mach-O file, little-endian.
    ///
    /// # Errors
    ///
    /// It is for no system that mesh runs on, or it is for an arm64 Mac and not signed: such a program is
    /// killed at its start.
    pub(super) fn of(bytes: &[u8]) -> anyhow::Result<Self> {
        match bytes {
            [0x7f, b'E', b'L', b'F', 2, 1, ..] => elf(bytes),
            [0xcf, 0xfa, 0xed, 0xfe, ..] => macho(bytes),
            _ => bail!("it is neither a 64-bit ELF nor a 64-bit Mach-O program"),
        }
    }

    pub(super) fn is_elf(self) -> bool {
        self.os == Os::Linux
    }

    /// What Debian calls the architecture.
    pub(super) fn debian(self) -> &'static str {
        match self.architecture {
            Architecture::X86 => "amd64",
            Architecture::Arm => "arm64",
        }
    }

    /// The system's name.
    pub(super) fn os(self) -> &'static str {
        match self.os {
            Os::Linux => "linux",
            Os::Macos => "macos",
        }
    }

    /// What `uname -m` says there.
    pub(super) fn machine(self) -> &'static str {
        match (self.os, self.architecture) {
            (_, Architecture::X86) => "x86_64",
            (Os::Linux, Architecture::Arm) => "aarch64",
            (Os::Macos, Architecture::Arm) => "arm64",
        }
    }
}

fn elf(bytes: &[u8]) -> anyhow::Result<Target> {
    let machine = bytes.get(18..20).context("it is cut short")?;
    let architecture = match u16::from_le_bytes([machine[0], machine[1]]) {
        62 => Architecture::X86,
        183 => Architecture::Arm,
        other => bail!("it is for ELF machine {other}"),
    };
    Ok(Target {
        os: Os::Linux,
        architecture,
    })
}

fn macho(bytes: &[u8]) -> anyhow::Result<Target> {
    let architecture = match word(bytes, 4)? {
        0x0100_0007 => Architecture::X86,
        0x0100_000c => Architecture::Arm,
        other => bail!("it is for Mach-O processor {other:#x}"),
    };
    if architecture == Architecture::Arm {
        ensure!(
            is_signed(bytes)?,
            "it has no code signature, without which arm64 Macs kill it: link it with a linker that signs (`cargo xtask darwin --link`), and do not strip it afterwards"
        );
    }
    Ok(Target {
        os: Os::Macos,
        architecture,
    })
}

fn is_signed(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut at = MACHO_HEADER_BYTES;
    for _ in 0..word(bytes, 16)? {
        if word(bytes, at)? == LC_CODE_SIGNATURE {
            return Ok(true);
        }
        let length = usize::try_from(word(bytes, at + 4)?)?;
        ensure!(length >= 8, "a load command of {length} bytes");
        at += length;
    }
    Ok(false)
}

fn word(bytes: &[u8], at: usize) -> anyhow::Result<u32> {
    let word = bytes.get(at..at + 4).context("it is cut short")?;
    Ok(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn macho_with(cpu: u32, commands: &[u32]) -> Vec<u8> {
        let count = u32::try_from(commands.len()).unwrap();
        let mut words = vec![0xfeed_facf, cpu, 0, 2, count, 16 * count, 0, 0];
        for command in commands {
            words.extend([*command, 16, 0, 0]);
        }
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn a_program_says_what_it_is_for() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let target = Target::of(&own).unwrap();
        assert_eq!(
            (target.os(), target.machine()),
            ("linux", std::env::consts::ARCH)
        );
        let intel = Target::of(&macho_with(0x0100_0007, &[0x19])).unwrap();
        assert_eq!((intel.os(), intel.machine()), ("macos", "x86_64"));
        let arm = Target::of(&macho_with(0x0100_000c, &[0x19, LC_CODE_SIGNATURE])).unwrap();
        assert_eq!((arm.os(), arm.machine()), ("macos", "arm64"));
    }

    #[test]
    fn what_would_not_start_is_refused() {
        let unsigned = macho_with(0x0100_000c, &[0x19, 0x32]);
        let error = Target::of(&unsigned).unwrap_err().to_string();
        assert!(error.contains("no code signature"), "{error}");
        let mut cut = macho_with(0x0100_000c, &[0x19, LC_CODE_SIGNATURE]);
        cut.truncate(50);
        for bytes in [&b"#!/bin/sh"[..], b"\x7fELF", b"", &cut] {
            assert!(Target::of(bytes).is_err(), "{bytes:?}");
        }
    }
}
