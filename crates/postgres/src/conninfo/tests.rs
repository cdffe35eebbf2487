use obyra_evidence::{Code, text};
use secrecy::ExposeSecret;

use super::*;

fn parse(text: &str) -> Conninfo {
    Conninfo::parse(text).unwrap_or_else(|failure| panic!("{text}: {failure}"))
}

fn refused(text: &str) -> Code {
    Conninfo::parse(text).expect_err(text).what.code()
}

fn password(conninfo: &Conninfo) -> &str {
    conninfo.password().map_or("", |password| password.expose_secret())
}

fn revealed(conninfo: &Conninfo, scheme: Scheme) -> String {
    conninfo.url(scheme, Reveal::Password).expose_secret().to_owned()
}

fn variable(conninfo: &Conninfo, name: &str) -> Option<String> {
    conninfo.env().into_iter().find(|(n, _)| *n == name).map(|(_, value)| value.expose_secret().to_owned())
}

#[test]
fn every_form_of_url_says_the_same() {
    for scheme in ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"] {
        let read = parse(&format!("  {scheme}://ana:s%40cr%2Ft@db.example:6432/obras?sslmode=require\n"));
        assert_eq!((read.user(), password(&read), read.database()), ("ana", "s@cr/t", "obras"));
        assert_eq!(read.hosts(), [Host::new("db.example", 6432)]);
        assert_eq!(read.ssl_mode(), SslMode::Require);
    }
    let read = parse(r"host=db.example port = 6432 user=ana password='it\'s \\ a = b' dbname=obras");
    assert_eq!((password(&read), read.hosts()), (r"it's \ a = b", &[Host::new("db.example", 6432)][..]));
}

#[test]
fn what_is_not_said_is_as_in_libpq() {
    let read = parse("postgresql://ana@db.example");
    assert_eq!((read.database(), read.hosts()[0].port, password(&read)), ("ana", 5432, ""));
    assert_eq!(read.ssl_mode(), SslMode::Prefer);
    assert_eq!(read.target_session_attrs(), TargetSessionAttrs::Any);
    assert_eq!(read.connect_timeout(), Some(Duration::from_secs(10)));
    assert_eq!(
        parse("postgresql://ana@/obras").host_summary(),
        "/var/run/postgresql/.s.PGSQL.5432,/tmp/.s.PGSQL.5432"
    );
    assert_eq!(refused("postgresql://db.example/obras"), text::postgres::NO_USER);
    assert_eq!(refused(""), text::postgres::EMPTY);
}

#[test]
fn hosts_of_every_kind() {
    let several = parse("postgresql://u@a:1,b,[::1]:3/d?target_session_attrs=prefer-standby");
    assert_eq!(several.hosts(), [Host::new("a", 1), Host::new("b", 5432), Host::new("::1", 3)]);
    assert_eq!(several.target_session_attrs(), TargetSessionAttrs::PreferStandby);
    assert_eq!(several.host_summary(), "a:1,b:5432,[::1]:3");

    for socket in [
        "postgresql://u@%2Frun%2Fpg:6/d",
        "postgresql://u@/d?host=/run/pg&port=6",
        "host=/run/pg port=6 user=u",
    ] {
        let read = parse(socket);
        assert_eq!(read.hosts()[0].socket_dir(), Some(Path::new("/run/pg")), "{socket}");
        assert_eq!(read.host_summary(), "/run/pg/.s.PGSQL.6");
    }
    let one_port = parse("host=a,b port=7 user=u");
    assert_eq!(one_port.hosts(), [Host::new("a", 7), Host::new("b", 7)]);
    let of_sqlalchemy = parse("postgresql+psycopg2://u@/d?host=a:1&host=b:2");
    assert_eq!(of_sqlalchemy.hosts(), [Host::new("a", 1), Host::new("b", 2)]);
    let by_address = parse("host=db.example hostaddr=10.0.0.7 user=u");
    assert_eq!(by_address.hosts()[0].address, Some("10.0.0.7".parse().unwrap()));
    assert_eq!(parse("hostaddr=::1 user=u").host_summary(), "[::1]:5432");
}

#[test]
fn tls_as_libpq_means_it() {
    let full =
        parse("postgresql://u@h/d?sslmode=verify-full&sslrootcert=/etc/ca.pem&channel_binding=require");
    assert_eq!(full.root_certificate(), Some(&RootCertificate::File("/etc/ca.pem".into())));
    assert_eq!(full.tls().channel_binding, ChannelBinding::Require);
    let system = parse("postgresql://u@h/d?sslrootcert=system");
    assert_eq!(
        (system.ssl_mode(), system.root_certificate()),
        (SslMode::VerifyFull, Some(&RootCertificate::System))
    );
    assert_eq!(
        refused("postgresql://u@h/d?sslrootcert=system&sslmode=require"),
        text::postgres::SYSTEM_ROOTS_NEED_VERIFY_FULL
    );
    for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] {
        assert_eq!(parse(&format!("user=u sslmode={mode}")).ssl_mode().name(), mode);
    }
}

#[test]
fn what_is_wrong_is_named_and_nothing_more() {
    use text::postgres as say;
    for (text, code) in [
        ("mysql://u@h/d", say::SCHEME),
        ("postgresql://u@h/d?sslmod=require", say::UNKNOWN_PARAMETER),
        ("postgresql://u@h/d?sslmode", say::PARAMETER_WITHOUT_VALUE),
        ("postgresql://u@h/d?sslmode=requird", say::BAD_VALUE),
        ("postgresql://u@h:0/d", say::BAD_PORT),
        ("postgresql://u@h:65536/d", say::BAD_PORT),
        ("postgresql://u@h:x/d", say::BAD_PORT),
        ("postgresql://u@[::1/d", say::BAD_HOST),
        ("postgresql://u@::1/d", say::BAD_HOST),
        ("postgresql://u%zz@h/d", say::BAD_ENCODING),
        ("postgresql://u@h/d%", say::BAD_ENCODING),
        ("postgresql://u@h/%ff", say::BAD_ENCODING),
        ("postgresql://u@h/%00", say::BAD_ENCODING),
        ("host=a,b,c port=1,2 user=u", say::HOSTS_AND_PORTS),
        ("host=a hostaddr=nowhere user=u", say::BAD_VALUE),
        ("user=u connect_timeout=soon", say::BAD_VALUE),
        ("user=u client_encoding=latin1", say::BAD_VALUE),
        ("user='u", say::UNCLOSED_QUOTE),
        ("user", say::MALFORMED),
        ("user=u service=x", say::UNKNOWN_PARAMETER),
    ] {
        assert_eq!(refused(text), code, "{text}");
    }
    let failure = Conninfo::parse("user=u sslmod=require").unwrap_err();
    assert_eq!(failure.exit, obyra_evidence::Exit::Usage);
    assert!(
        failure.to_string().starts_with("unknown connection parameter: sslmod (known: host, hostaddr, port")
    );
}

#[test]
fn rendered_and_read_again_it_is_the_same() {
    for text in [
        "postgresql://an%C3%A1:s%40%2F%3F%25%20c@h:6432/ob%20ras?sslmode=verify-ca&sslrootcert=/a%20b/ca.pem",
        "postgresql://u:p@a:1,[::1]:2/d?target_session_attrs=read-write&connect_timeout=3&options=-c%20x%3D1",
        "postgresql://u:p@%2Frun%2Fpg:5433/d?application_name=me&channel_binding=disable",
        "postgresql://u:p@h/d?hostaddr=10.0.0.1&sslcert=/c&sslkey=/k&connect_timeout=0",
        "postgresql://u:p@h/d?keepalives_idle=30&tcp_user_timeout=5000",
    ] {
        let read = parse(text);
        for scheme in [Scheme::Postgresql, Scheme::PostgresqlPsycopg] {
            let again = parse(&revealed(&read, scheme));
            assert_eq!(format!("{again:?}"), format!("{read:?}"), "{text}");
            assert_eq!(password(&again), password(&read));
        }
    }
    let read = parse("postgresql://u:p@a:1,b:2/d");
    assert_eq!(revealed(&read, Scheme::Postgresql), "postgresql://u:p@a:1,b:2/d?sslmode=prefer");
    assert_eq!(
        revealed(&read, Scheme::PostgresqlPsycopg),
        "postgresql+psycopg://u:p@/d?host=a:1&host=b:2&sslmode=prefer"
    );
}

#[test]
fn a_child_gets_the_variables_that_libpq_reads() {
    let read = parse("postgresql://u:p@a:1,b:2/d?sslmode=require&options=-c%20x%3D1&connect_timeout=3");
    assert_eq!(variable(&read, "PGHOST").as_deref(), Some("a,b"));
    assert_eq!(variable(&read, "PGPORT").as_deref(), Some("1,2"));
    assert_eq!(variable(&read, "PGPASSWORD").as_deref(), Some("p"));
    assert_eq!(variable(&read, "PGSSLMODE").as_deref(), Some("require"));
    assert_eq!(variable(&read, "PGOPTIONS").as_deref(), Some("-c x=1"));
    assert_eq!(variable(&read, "PGCONNECT_TIMEOUT").as_deref(), Some("3"));
    assert_eq!(variable(&read, "PGSSLROOTCERT"), None);
    assert!(!format!("{:?}", read.env()).contains("\"p\""));
}

#[test]
fn another_role_takes_nothing_of_the_first() {
    let admin = parse("postgresql://admin:theirs@h/d?sslmode=require");
    let app = admin.with_role("app", None).with_database("e");
    assert_eq!(app.to_string(), "postgresql://app@h:5432/e?sslmode=require");
    assert_eq!(password(&app), "");
}

/// A small generator, so that the cases are many and always the same.
struct Dice(u64);

impl Dice {
    fn roll<'a>(&mut self, of: &[&'a str]) -> &'a str {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        of[usize::try_from(self.0 % of.len() as u64).unwrap()]
    }
}

#[test]
fn no_failure_holds_a_piece_of_the_password() {
    // None of these pieces occurs in a message or in the rest of the text.
    const PIECES: &[&str] = &["qzxj", "wkvy", "zqwx", "QKZJ", "77319", "ñjqz"];
    const MARKS: &[&str] =
        &["@", "/", "?", "#", ":", "%", "&", "=", " ", "'", "\\", "%zz", "[", ",", "@:", "?=", "://"];
    const TEXTS: &[&str] = &[
        "postgresql://u:{}@h/d",
        "postgresql://u:{}@h:x/d",
        "postgresql://u:{}@h/d?sslmod=x",
        "postgresql+psycopg://u@srv:{}@h:5432/d",
        "postgresql://{}@h/d?target_session_attrs=x",
        "postgresql://u@h/d?password={}",
        "postgresql://u@h/d?password={}&sslmod=x",
        "host=h user=u password={}",
        "password={} host=h user=u",
        "host=h user=u password='{}' port=x",
        "password='{}",
        "u:{}@h/d",
        "postgress://u:{}@h/d",
    ];
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let mut refusals = 0;
    for _ in 0..40_000 {
        let (a, b, c) = (dice.roll(PIECES), dice.roll(PIECES), dice.roll(PIECES));
        let password = format!("{a}{}{b}{}{c}", dice.roll(MARKS), dice.roll(MARKS));
        let text = dice.roll(TEXTS).replace("{}", &password);
        let shown = match Conninfo::parse(&text) {
            Err(failure) => {
                refusals += 1;
                format!("{failure} {failure:?} {:?}", failure.mend.as_ref().map(ToString::to_string))
            }
            Ok(read) => {
                // What stands before the first `@` and has no colon is a user's name, not a password.
                let read = read.with_role("u", read.password().cloned());
                format!("{read} {read:?} {}", read.host_summary())
            }
        };
        for piece in [a, b, c] {
            assert!(!shown.contains(piece), "{text}\n{shown}");
        }
    }
    assert!(refusals > 10_000, "{refusals}");
}
