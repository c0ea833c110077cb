//! Whom an encrypted line trusts: the public certificate authorities, and those of the operator.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::Error;

/// What TLS is spoken with. Certificates and host names are always checked; there is no switch.
pub(super) fn config(
    place: &str,
    authorities: Option<&str>,
) -> Result<Arc<rustls::ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.into(),
    };
    if let Some(text) = authorities {
        add(&mut roots, text).map_err(|reason| Error::BadGrant {
            place: place.to_owned(),
            key: "grants.tls-ca",
            value: "PEM".to_owned(),
            reason: format!(
                "{reason}; name a file with one or more `BEGIN CERTIFICATE` blocks, each of an authority"
            ),
        })?;
    }
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Engine {
            reason: error.to_string(),
        })?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

fn add(roots: &mut rustls::RootCertStore, text: &str) -> Result<(), String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("it is not PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate in it cannot be used: {error}"))?;
        count += 1;
    }
    if count == 0 {
        return Err("there is no certificate in it".to_owned());
    }
    Ok(())
}
