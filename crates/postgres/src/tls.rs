//! TLS with libpq's meaning of each sslmode.

mod end_point;
mod verifier;

use std::path::Path;
use std::sync::Arc;

use obyra_evidence::{Failure, text};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Result;
use crate::conninfo::{Conninfo, RootCertificate, SslMode, TlsWish};
pub(crate) use end_point::server_end_point;
use verifier::{Demand, Trust, Verifier};

/// How TLS is spoken with this target. The provider is named here, so that nothing
/// depends on what else in the process chose a default.
pub(crate) fn client_config(target: &Conninfo) -> Result<Arc<ClientConfig>> {
    let wish = target.tls();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = verifier(wish, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::new(text::postgres::TLS_SETUP).because(e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match own_certificate(wish)? {
        Some((chain, key)) => config
            .with_client_auth_cert(chain, key)
            .map_err(|e| Failure::new(text::postgres::CLIENT_CERTIFICATE).because(e))?,
        None => config.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn verifier(wish: &TlsWish, provider: &Arc<CryptoProvider>) -> Result<Verifier> {
    let trust = match &wish.root {
        _ if wish.mode == SslMode::Disable => None,
        Some(RootCertificate::File(file)) => Some(trust_in(file)?),
        Some(RootCertificate::System) => Some(Trust { roots: system_roots()?, given: Vec::new() }),
        None => None,
    };
    let demand = match (wish.mode, trust) {
        (SslMode::VerifyFull, Some(trust)) => Demand::ChainAndName(trust),
        // Like libpq: a root certificate is there to be used, whatever the mode says.
        (_, Some(trust)) => Demand::Chain(trust),
        (SslMode::VerifyCa | SslMode::VerifyFull, None) => {
            return Err(Failure::usage(text::postgres::NO_ROOT_CERTIFICATE.with("mode", wish.mode))
                .mended_by(text::postgres::MEND_ROOT_CERTIFICATE));
        }
        (_, None) => Demand::Nothing,
    };
    Ok(Verifier::new(demand, provider.signature_verification_algorithms))
}

fn trust_in(file: &Path) -> Result<Trust> {
    let unusable = || Failure::usage(text::postgres::ROOT_CERTIFICATE.with("file", file.display()));
    let given = certificates_in(file).map_err(|e| unusable().because(e))?;
    let mut roots = RootCertStore::empty();
    for certificate in &given {
        roots.add(certificate.clone()).map_err(|e| unusable().because(e))?;
    }
    if roots.is_empty() {
        return Err(unusable().because("no certificate in PEM form"));
    }
    Ok(Trust { roots, given })
}

fn system_roots() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(Failure::new(text::postgres::NO_SYSTEM_ROOTS).because(why));
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn own_certificate(wish: &TlsWish) -> Result<Option<Identity>> {
    let (certificate, key) = match (&wish.certificate, &wish.key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => return Err(Failure::usage(text::postgres::CERTIFICATE_WITHOUT_KEY)),
    };
    let unusable =
        |file: &Path| Failure::usage(text::postgres::CLIENT_CERTIFICATE_FILE.with("file", file.display()));
    let chain = certificates_in(certificate).map_err(|e| unusable(certificate).because(e))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key).because(e))?;
    Ok(Some((chain, key)))
}

fn certificates_in(
    file: &Path,
) -> std::result::Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    CertificateDer::pem_file_iter(file)?.collect()
}
