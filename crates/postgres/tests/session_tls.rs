//! Each sslmode against a real server, and against servers that do not do as they are told.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

use std::net::TcpListener as StdListener;

use obyra_evidence::{Code, Failure, text::postgres as say};
use obyra_postgres::cluster::{
    MAJORS_FOR_TESTS, TemporaryCluster, TemporaryOptions, for_tests_version_with, for_tests_with,
};
use obyra_postgres::secrecy::ExposeSecret as _;
use obyra_postgres::{Conninfo, Limits, Session};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A cluster with one role that is admitted only with TLS, and one only without.
async fn cluster(major: u32) -> TemporaryCluster {
    let options = TemporaryOptions {
        tls: true,
        hba: vec![
            "hostssl   all only_tls   127.0.0.1/32 scram-sha-256".into(),
            "host      all only_tls   127.0.0.1/32 reject".into(),
            "hostnossl all only_plain 127.0.0.1/32 scram-sha-256".into(),
            "host      all only_plain 127.0.0.1/32 reject".into(),
        ],
        in_memory: true,
        ..TemporaryOptions::default()
    };
    let cluster = for_tests_version_with(major, &options).await;
    let admin = Session::connect(&cluster.admin(), Limits::default()).await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE only_tls LOGIN PASSWORD 'secret'; CREATE ROLE only_plain LOGIN PASSWORD 'secret'",
        )
        .await
        .unwrap();
    cluster
}

/// The cluster under a host name of our choice.
fn named(cluster: &TemporaryCluster, host: &str, user: &str, parameters: &str) -> Conninfo {
    let admin = cluster.loopback();
    let port = admin.hosts()[0].port;
    let (user, password) = match user {
        "postgres" => ("postgres", admin.password().unwrap().expose_secret().to_owned()),
        other => (other, "secret".to_owned()),
    };
    Conninfo::parse(&format!(
        "host={host} hostaddr=127.0.0.1 port={port} user={user} password='{password}' dbname=postgres {parameters}"
    ))
    .unwrap()
}

async fn encrypted(target: &Conninfo) -> Result<bool, Failure> {
    let session = Session::connect(target, Limits::default()).await?;
    let row =
        session.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
    assert_eq!(row.get::<_, bool>(0), session.encrypted());
    Ok(session.encrypted())
}

async fn refused(target: &Conninfo) -> Code {
    let failure = encrypted(target).await.expect_err("a refusal");
    assert!(!format!("{failure} {failure:?}").contains("secret"), "{failure:?}");
    failure.what.code()
}

#[tokio::test]
async fn certificates_prove_what_the_mode_asks() {
    for major in MAJORS_FOR_TESTS {
        certificates(cluster(major).await).await;
    }
}

async fn certificates(cluster: TemporaryCluster) {
    let ca = cluster.ca_file();
    let trust = format!("sslrootcert='{}'", ca.display());
    let stranger = cluster.dir().join("stranger.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(&stranger, params.self_signed(&key).unwrap().pem()).unwrap();
    let distrust = format!("sslrootcert='{}'", stranger.display());

    let at = |host: &str, parameters: &str| named(&cluster, host, "postgres", parameters);
    let full = format!("sslmode=verify-full {trust}");
    assert!(encrypted(&at("localhost", &full)).await.unwrap());
    assert!(encrypted(&at("localhost", &format!("{full} channel_binding=require"))).await.unwrap());
    assert_eq!(refused(&at("db.example", &full)).await, say::WRONG_NAME);
    assert!(encrypted(&at("db.example", &format!("sslmode=verify-ca {trust}"))).await.unwrap());
    assert_eq!(refused(&at("localhost", &format!("sslmode=verify-full {distrust}"))).await, say::NOT_TRUSTED);
    assert_eq!(refused(&at("localhost", &format!("sslmode=verify-ca {distrust}"))).await, say::NOT_TRUSTED);
    assert_eq!(refused(&at("localhost", "sslrootcert=system")).await, say::NOT_TRUSTED);

    // Like libpq: `require` trusts anybody, unless it is told whom to trust.
    assert!(encrypted(&at("db.example", "sslmode=require")).await.unwrap());
    assert!(encrypted(&at("db.example", &format!("sslmode=require {trust}"))).await.unwrap());
    assert_eq!(refused(&at("localhost", &format!("sslmode=require {distrust}"))).await, say::NOT_TRUSTED);

    assert_eq!(refused(&at("localhost", "sslmode=verify-full")).await, say::NO_ROOT_CERTIFICATE);
    assert_eq!(
        refused(&at("localhost", "sslmode=verify-ca sslrootcert=/no/such.pem")).await,
        say::ROOT_CERTIFICATE
    );
    assert_eq!(
        refused(&at("localhost", "sslmode=require sslcert=/c.pem")).await,
        say::CERTIFICATE_WITHOUT_KEY
    );
}

/// A certificate of its own, as PostgreSQL's manual makes one, or one of an authority.
fn certificate(
    name: &str,
    issuer: Option<&rcgen::Issuer<'_, rcgen::KeyPair>>,
) -> (String, String, rcgen::CertificateParams) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.self_signed(&key).unwrap()
        }
    };
    (certificate.pem(), key.serialize_pem(), params)
}

#[tokio::test]
async fn certificates_of_clients_and_self_signed_ones() {
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (ca, ca_key, ca_params) = certificate("authority", None);
    let issuer = rcgen::Issuer::new(ca_params, rcgen::KeyPair::from_pem(&ca_key).unwrap());
    let (own, own_key, _) = certificate("robot", Some(&issuer));
    let (ca, own, own_key) = (file("ca.pem", &ca), file("own.pem", &own), file("own.key", &own_key));
    let options = TemporaryOptions {
        tls: true,
        settings: vec![("ssl_ca_file".into(), ca.clone())],
        hba: vec!["hostssl all robot 127.0.0.1/32 cert".into()],
        in_memory: true,
    };
    let cluster = for_tests_with(&options).await;
    let admin = Session::connect(&cluster.admin(), Limits::default()).await.unwrap();
    admin.batch_execute("CREATE ROLE robot LOGIN; CREATE ROLE human LOGIN").await.unwrap();

    let robot =
        named(&cluster, "localhost", "robot", &format!("sslmode=require sslcert={own} sslkey={own_key}"));
    assert!(encrypted(&robot).await.unwrap());
    let other = named(&cluster, "localhost", "robot", "sslmode=require");
    assert_eq!(refused(&other).await, say::NO_HBA_ENTRY);

    // The server's own certificate given as the one to trust.
    let (own, own_key, _) = certificate("localhost", None);
    std::fs::write(cluster.dir().join("data/server.crt"), &own).unwrap();
    std::fs::write(cluster.dir().join("data/server.key"), &own_key).unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let trust = file("server.pem", &own);
    let full = format!("sslmode=verify-full sslrootcert={trust}");
    assert!(encrypted(&named(&cluster, "localhost", "postgres", &full)).await.unwrap());
    assert_eq!(refused(&named(&cluster, "db.example", "postgres", &full)).await, say::WRONG_NAME);
    let other = format!("sslmode=verify-full sslrootcert={ca}");
    assert_eq!(refused(&named(&cluster, "localhost", "postgres", &other)).await, say::NOT_TRUSTED);
}

#[tokio::test]
async fn allow_and_prefer_take_the_other_way_when_refused() {
    let cluster = cluster(16).await;
    for (user, mode, outcome) in [
        ("only_tls", "disable", Err(say::NO_HBA_ENTRY)),
        ("only_tls", "allow", Ok(true)),
        ("only_tls", "prefer", Ok(true)),
        ("only_tls", "require", Ok(true)),
        ("only_plain", "disable", Ok(false)),
        ("only_plain", "allow", Ok(false)),
        ("only_plain", "prefer", Ok(false)),
        ("only_plain", "require", Err(say::NO_HBA_ENTRY)),
    ] {
        let target = named(&cluster, "localhost", user, &format!("sslmode={mode}"));
        let found = encrypted(&target).await.map_err(|failure| failure.what.code());
        assert_eq!(found, outcome, "{user} {mode}");
    }
    // Without TLS there is nothing to bind the password to.
    let bound = named(&cluster, "localhost", "only_plain", "sslmode=disable channel_binding=require");
    assert_eq!(refused(&bound).await, say::NO_CHANNEL_BINDING);
}

/// A server that answers the request for TLS with these bytes, and then says nothing more.
async fn impostor(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = [0; 8];
            let _ = client.read_exact(&mut request).await;
            let _ = client.write_all(answer).await;
            kept.push(client);
        }
    });
    port
}

#[tokio::test]
async fn servers_that_do_not_answer_as_they_should() {
    let to = |port: u16, more: &str| {
        Conninfo::parse(&format!("host=127.0.0.1 port={port} user=u password=secret {more}")).unwrap()
    };
    let without_tls = impostor(b"N").await;
    assert_eq!(refused(&to(without_tls, "sslmode=require")).await, say::TLS_REFUSED);
    let no_tls_at_all = impostor(b"Shttp/1.1 400 Bad Request").await;
    assert_eq!(refused(&to(no_tls_at_all, "sslmode=require")).await, say::TLS_FAILED);
    let silent = impostor(b"").await;
    assert_eq!(refused(&to(silent, "sslmode=require connect_timeout=1")).await, say::NO_ANSWER);

    let closed = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(refused(&to(closed, "")).await, say::REFUSED);
    let nowhere = Conninfo::parse("host=no-such-host.invalid user=u").unwrap();
    assert_eq!(refused(&nowhere).await, say::NAME_UNKNOWN);
    let socket = Conninfo::parse("host=/no/such/folder user=u").unwrap();
    assert_eq!(refused(&socket).await, say::NO_SOCKET);
    let several = Conninfo::parse(&format!("host=127.0.0.1,127.0.0.2 port={closed} user=u")).unwrap();
    assert_eq!(refused(&several).await, say::NO_HOST);
}
