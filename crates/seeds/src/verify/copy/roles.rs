//! The target's roles on the copy: their attributes and memberships, but no way in.

use obyra_evidence::{Failure, text};
use obyra_postgres::secrecy::{ExposeSecret as _, SecretString};
use obyra_postgres::{Result, Session, generate_password, quote, scram_verifier, sql_failure};

use super::failed;

/// Creates the roles, none of which may log in, and grants the memberships.
pub(super) async fn create(source: &Session, admin: &Session) -> Result<()> {
    let mut script = String::new();
    let roles = "SELECT rolname::text, rolinherit, rolbypassrls, rolsuper FROM pg_catalog.pg_roles
                  WHERE rolname !~ '^pg_' ORDER BY rolname";
    let existing = ask(admin, "SELECT rolname::text FROM pg_catalog.pg_roles").await?;
    let existing: Vec<String> = existing.iter().map(|row| row.get(0)).collect();
    for role in ask(source, roles).await? {
        let name: String = role.get(0);
        if existing.contains(&name) {
            continue;
        }
        let attribute = |nth, yes: &'static str, no: &'static str| if role.get(nth) { yes } else { no };
        script += &format!(
            "CREATE ROLE {} NOLOGIN {} {} {};\n",
            quote::ident(&name),
            attribute(1, "INHERIT", "NOINHERIT"),
            attribute(2, "BYPASSRLS", "NOBYPASSRLS"),
            attribute(3, "SUPERUSER", "NOSUPERUSER"),
        );
    }
    script += &memberships(source, admin).await?;
    admin.batch_execute(&script).await.map_err(|e| sql_failure(failed(), &e))
}

/// PostgreSQL 16's options where both sides have them; before 16 the member's INHERIT says it all.
async fn memberships(source: &Session, admin: &Session) -> Result<String> {
    let memberships = "SELECT pg_catalog.pg_get_userbyid(m.roleid)::text, pg_catalog.pg_get_userbyid(m.member)::text,
                              (to_jsonb(m) ->> 'inherit_option')::boolean, (to_jsonb(m) ->> 'set_option')::boolean
                         FROM pg_catalog.pg_auth_members m
                        WHERE pg_catalog.pg_get_userbyid(m.member) !~ '^pg_'";
    let mut script = String::new();
    for row in ask(source, memberships).await? {
        let (role, member): (String, String) = (row.get(0), row.get(1));
        script += &format!("GRANT {} TO {}", quote::ident(&role), quote::ident(&member));
        if let (Some(inherit), Some(set), true) = (row.get(2), row.get(3), admin.version().at_least(16)) {
            let (inherit, set): (bool, bool) = (inherit, set);
            script += &format!(" WITH INHERIT {inherit}, SET {set}");
        }
        script += ";\n";
    }
    Ok(script)
}

/// Copies what `ALTER ROLE … SET` and `ALTER DATABASE … SET` give to a session of this role.
pub(super) async fn copy_settings(source: &Session, inside: &Session, role: &str) -> Result<()> {
    let settings = format!(
        "SELECT s.setrole <> 0, s.setdatabase <> 0, split_part(c, '=', 1), substr(c, strpos(c, '=') + 1),
                current_database()::text
           FROM pg_catalog.pg_db_role_setting s
          CROSS JOIN unnest(s.setconfig) c
          WHERE s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
            AND s.setrole IN (0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {}))",
        quote::literal(role),
    );
    for row in ask(source, &settings).await? {
        let (of_role, of_database): (bool, bool) = (row.get(0), row.get(1));
        let (name, value, database): (String, String, String) = (row.get(2), row.get(3), row.get(4));
        let (role, database) = (quote::ident(role), quote::ident(&database));
        let whose = match (of_role, of_database) {
            (true, true) => format!("ROLE {role} IN DATABASE {database}"),
            (true, false) => format!("ROLE {role}"),
            (false, true) => format!("DATABASE {database}"),
            (false, false) => "ROLE ALL".to_owned(),
        };
        let statement = if name == "role" {
            format!("ALTER {whose} SET role = {}", quote::literal(&value))
        } else {
            // A list such as search_path is stored as it would be read, not as it would be quoted:
            // setting it and taking it over is the one way that suits every setting.
            format!(
                "BEGIN; SELECT pg_catalog.set_config({}, {}, true); ALTER {whose} SET {} FROM CURRENT; COMMIT",
                quote::literal(&name),
                quote::literal(&value),
                setting_name(&name),
            )
        };
        inside.batch_execute(&statement).await.map_err(|e| sql_failure(failed(), &e))?;
    }
    Ok(())
}

/// An extension's setting has two parts.
fn setting_name(name: &str) -> String {
    name.split('.').map(quote::ident).collect::<Vec<_>>().join(".")
}

/// Lets the role that runs seeds into the copy, with a password that nobody else learns.
pub(super) async fn let_in(inside: &Session, role: &str) -> Result<SecretString> {
    let known = inside
        .query_opt("SELECT FROM pg_catalog.pg_roles WHERE rolname = $1", &[&role])
        .await
        .map_err(|e| sql_failure(failed(), &e))?;
    if known.is_none() {
        return Err(Failure::usage(text::seeds::NO_SUCH_ROLE.with("role", role)));
    }
    let password = generate_password()?;
    let verifier = scram_verifier(&password);
    let statement = format!(
        "ALTER ROLE {} LOGIN PASSWORD {}",
        quote::ident(role),
        quote::literal(verifier.expose_secret())
    );
    inside.batch_execute(&statement).await.map_err(|e| sql_failure(failed(), &e))?;
    Ok(password)
}

async fn ask(session: &Session, query: &str) -> Result<Vec<tokio_postgres::Row>> {
    session.query(query, &[]).await.map_err(|e| sql_failure(failed(), &e))
}
