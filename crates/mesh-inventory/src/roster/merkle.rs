//! The Merkle tree of RFC 9162 section 2.1.1 over SHA-256.

use sha2::{Digest, Sha256};

use super::Hash;

/// The hash of one leaf: SHA-256 of a zero byte and the leaf.
pub(super) fn leaf(bytes: &[u8]) -> Hash {
    Hash(
        Sha256::new_with_prefix([0])
            .chain_update(bytes)
            .finalize()
            .into(),
    )
}

/// The root over the hashes of the leaves; without any, the hash of nothing.
pub(super) fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of(b""),
        [only] => *only,
        more => {
            // The largest power of two below the number of leaves.
            let split = more.len().next_power_of_two() / 2;
            let (left, right) = more.split_at(split);
            node(root(left), root(right))
        }
    }
}

fn node(left: Hash, right: Hash) -> Hash {
    Hash(
        Sha256::new_with_prefix([1])
            .chain_update(left.0)
            .chain_update(right.0)
            .finalize()
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs and roots of the Certificate Transparency reference implementation's test data, which
    /// every implementation of RFC 6962 and RFC 9162 is checked against.
    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let inputs: [&[u8]; 8] = [
            &[],
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[
                0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d,
                0x6e, 0x6f,
            ],
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves: Vec<_> = inputs.iter().map(|input| leaf(input)).collect();
        for (count, expected) in roots.iter().enumerate() {
            assert_eq!(root(&leaves[..count]).to_string(), *expected, "{count}");
        }
    }
}
