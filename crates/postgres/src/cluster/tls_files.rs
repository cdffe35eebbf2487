//! The certificates of a cluster: an authority of its own, whose key is thrown away at once, and a
//! server certificate for loopback, so that `verify-full` and channel binding work everywhere.

use obyra_evidence::{Failure, text};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::files;
use super::layout::Layout;
use super::user::ServerUser;
use crate::Result;

/// The names under which the server is reached.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The names that PostgreSQL gives them, in the data folder.
pub(super) const KEY: &str = "server.key";
pub(super) const CERTIFICATE: &str = "server.crt";

struct Chain {
    ca: String,
    certificate: String,
    key: String,
}

/// Writes the authority's certificate beside the data folder and the server's into it.
pub(super) fn install(layout: &Layout, user: &ServerUser) -> Result<()> {
    let chain = generate().map_err(|e| Failure::new(text::cluster::CERTIFICATE_FAILED).because(e))?;
    files::write_for(&layout.data().join(KEY), &chain.key, 0o600, user.owner())?;
    files::write_for(&layout.data().join(CERTIFICATE), &chain.certificate, 0o644, user.owner())?;
    // Last: where it exists, the others do.
    files::write(&layout.ca(), &chain.ca, 0o644)
}

/// Keys are ECDSA P-256: Ed25519 certificates get no channel binding.
fn generate() -> std::result::Result<Chain, rcgen::Error> {
    let mut ca = params("obyra-db local authority", &[])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;

    let mut server = params("localhost", &NAMES)?;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let server_key = KeyPair::generate()?;
    let certificate = server.signed_by(&server_key, &Issuer::new(ca, ca_key))?;
    Ok(Chain { ca: ca_certificate.pem(), certificate: certificate.pem(), key: server_key.serialize_pem() })
}

fn params(name: &str, names: &[&str]) -> std::result::Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    // RFC 5280's "no well-defined expiration": the key never leaves this machine, and a cluster that
    // one day refuses its own clients helps nobody.
    params.not_after = date_time_ymd(9999, 12, 31);
    Ok(params)
}
