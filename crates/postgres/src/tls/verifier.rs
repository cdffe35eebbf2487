//! How much a server's certificate has to prove.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// What is asked of the certificate.
#[derive(Debug)]
pub(super) enum Demand {
    /// Nothing: encryption only.
    Nothing,
    /// That it comes from one of these authorities (`verify-ca`).
    Chain(Trust),
    /// The same, and that it names the host (`verify-full`).
    ChainAndName(Trust),
}

/// Whom we trust.
#[derive(Debug)]
pub(super) struct Trust {
    /// The authorities.
    pub roots: RootCertStore,
    /// The certificates of a file, as they are: one of them may be the server's own.
    pub given: Vec<CertificateDer<'static>>,
}

fn is_about_dates(error: &Error) -> bool {
    use CertificateError as E;
    matches!(
        error,
        Error::InvalidCertificate(
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. }
        )
    )
}

#[derive(Debug)]
pub(super) struct Verifier {
    demand: Demand,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(demand: Demand, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Verifier { demand, algorithms }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (trust, named) = match &self.demand {
            Demand::Nothing => return Ok(ServerCertVerified::assertion()),
            Demand::Chain(trust) => (trust, false),
            Demand::ChainAndName(trust) => (trust, true),
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let chain = verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &trust.roots,
            intermediates,
            now,
            self.algorithms.all,
        );
        match chain {
            // PostgreSQL's manual makes a self-signed certificate that is its own authority. libpq takes
            // it when it is the very one it was given, and so do we; dates are checked before this.
            Err(error) if !is_about_dates(&error) && trust.given.iter().any(|given| given == end_entity) => {}
            chain => chain?,
        }
        if named {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // The signature is checked even where the certificate is not: SCRAM channel binding hashes
    // the certificate, and only this shows that the peer holds its key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
