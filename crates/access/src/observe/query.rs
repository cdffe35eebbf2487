//! The one query. It leaves out what no plan asks for, groups what is alike (two thousand
//! tables with the same privileges are one row), and names every function and catalogue by
//! its schema where a `search_path` could change its meaning.

use std::collections::BTreeSet;

use obyra_postgres::ServerVersion;

use crate::pattern::Pattern;
use crate::quote::literal;
use crate::{Policy, Target};

/// The catalogue query for a policy and its target: one row with one `text` column, JSON.
///
/// It needs no privilege beyond what every role has.
pub fn catalogue_query(version: ServerVersion, policy: &Policy, target: &Target) -> String {
    let parts = [
        server(),
        roles(version),
        schemas(),
        relations(policy),
        routines(),
        TYPES.to_owned(),
        extensions(policy),
        settings(policy),
        DETAILS.to_owned(),
        dependencies(policy),
    ];
    format!(
        "WITH RECURSIVE managed AS MATERIALIZED (\n  {}\n), named AS (\n  {}\n)\nSELECT json_build_object(\n{}\n)::text",
        managed(policy, target),
        named(policy, target),
        parts.join(",\n")
    )
}

/// The managed schemas: those of the target, or all when the target names none; each with the
/// owner that its sequences should have.
fn managed(policy: &Policy, target: &Target) -> String {
    let wanted = wanted_owner(policy, target);
    let user = format!(
        "SELECT oid, {wanted} AS wanted FROM pg_catalog.pg_namespace n
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
    );
    if target.schemas.is_empty() {
        return user;
    }
    let names: BTreeSet<&String> = target.schemas.values().collect();
    let names: Vec<String> = names.into_iter().map(|n| literal(n)).collect();
    format!("{user} AND nspname IN ({})", names.join(", "))
}

/// For a schema `n`, the owner that its sequences should have. Which column a sequence belongs to
/// matters only where its owner is another: there it must be given away through its table.
fn wanted_owner(policy: &Policy, target: &Target) -> String {
    let cases: Vec<String> = target
        .schemas
        .iter()
        .filter_map(|(logical, real)| {
            let owner = policy.owner_of_schema(logical)?;
            Some(format!("WHEN {} THEN {}", literal(real), literal(owner)))
        })
        .collect();
    if cases.is_empty() {
        return "nspowner".to_owned();
    }
    format!(
        "(SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = CASE n.nspname {} END)",
        cases.join(" ")
    )
}

/// The tables that the policy names one by one, and whatever inherits from them.
fn named(policy: &Policy, target: &Target) -> String {
    let exceptions = policy.objects.keys().filter_map(|p| Pattern::parse(p)).filter(Pattern::is_exact);
    let tables = policy.sensitive.keys().chain(&policy.tenancy.tables).filter_map(|t| Pattern::table(t));
    let rows: BTreeSet<String> = tables
        .chain(exceptions)
        .filter(|p| p.subject.kind() == crate::privilege::Kind::Table)
        .filter_map(|p| {
            let schema = real_schema(target, &p.schema)?;
            Some(format!("({}, {})", literal(schema), literal(&p.name)))
        })
        .collect();
    if rows.is_empty() {
        return "SELECT NULL::oid AS oid WHERE false".to_owned();
    }
    let rows: Vec<String> = rows.into_iter().collect();
    format!(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE (n.nspname, c.relname) IN ({})
  UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN named ON i.inhparent = named.oid
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relkind IN ('r', 'p', 'f')",
        rows.join(", ")
    )
}

fn real_schema<'a>(target: &'a Target, logical: &'a str) -> Option<&'a str> {
    if target.schemas.is_empty() { Some(logical) } else { target.schemas.get(logical).map(String::as_str) }
}

fn server() -> String {
    "'version', current_setting('server_version_num')::int,
'me', (SELECT oid::int8 FROM pg_catalog.pg_roles WHERE rolname = current_user),
'locks', current_setting('max_locks_per_transaction')::int8
  * (current_setting('max_connections')::int8 + current_setting('max_prepared_transactions')::int8),
'db', (SELECT json_build_array(datname, datdba::int8, datacl::text)
  FROM pg_catalog.pg_database WHERE datname = current_database()),
'ext', (SELECT json_agg(extname) FROM pg_catalog.pg_extension)"
        .to_owned()
}

fn roles(version: ServerVersion) -> String {
    let (grantor, inherit, set) = if version.at_least(16) {
        ("grantor::int8", "inherit_option", "set_option")
    } else {
        // Before 16 nobody keeps the grantor up to date, and the options do not exist.
        ("0", "NULL::bool", "NULL::bool")
    };
    format!(
        "'roles', (SELECT json_agg(json_build_array(oid::int8, rolname, rolsuper, rolinherit, rolcreaterole,
    rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil))
  FROM pg_catalog.pg_roles),
'members', (SELECT json_agg(json_build_array(roleid::int8, member::int8, {grantor}, admin_option,
    {inherit}, {set})) FROM pg_catalog.pg_auth_members),
'rolset', (SELECT json_agg(json_build_array(setrole::int8, setdatabase <> 0, setconfig))
  FROM pg_catalog.pg_db_role_setting
  WHERE setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())))"
    )
}

/// The objects of a catalogue that belong to extensions.
fn of_extensions(catalogue: &str) -> String {
    format!(
        "(SELECT objid FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_extension'::regclass
    AND classid = 'pg_catalog.{catalogue}'::regclass AND deptype = 'e')"
    )
}

fn schemas() -> String {
    let extensions = of_extensions("pg_namespace");
    format!(
        "'ns', (SELECT json_agg(json_build_array(oid::int8, nspname, nspowner::int8, nspacl::text,
    oid IN {extensions}))
  FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
'defacl', (SELECT json_agg(json_build_array(defaclrole::int8, defaclnamespace::int8, defaclobjtype,
    defaclacl::text))
  FROM pg_catalog.pg_default_acl WHERE defaclobjtype IN ('r', 'S', 'f', 'T', 'n'))"
    )
}

fn relations(policy: &Policy) -> String {
    let extensions = of_extensions("pg_class");
    // An import, for which nothing is named yet, must know whatever may follow its parent.
    let heirs = if *policy == Policy::default() {
        "pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relkind IN ('r', 'p', 'f')
    AND c.relnamespace IN (SELECT oid FROM managed)"
    } else {
        "named ON named.oid = i.inhrelid"
    };
    format!(
        "'rel', (SELECT json_agg(json_build_array(relnamespace::int8, relkind, relowner::int8, relacl::text,
    relrowsecurity, relforcerowsecurity, relispartition, oids, names))
  FROM (SELECT relnamespace, relkind, relowner, relacl, relrowsecurity, relforcerowsecurity, relispartition,
      array_agg(oid::int8) AS oids, array_agg(relname::text) AS names
    FROM pg_catalog.pg_class
    WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND relnamespace IN (SELECT oid FROM managed)
      AND oid NOT IN {extensions}
    GROUP BY relnamespace, relkind, relowner, relacl, relrowsecurity, relforcerowsecurity, relispartition) r),
'seq', (SELECT json_agg(json_build_array(c.oid::int8, d.refobjid::int8))
  FROM pg_catalog.pg_class c JOIN managed n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL (SELECT refobjid FROM pg_catalog.pg_depend
    WHERE classid = 'pg_catalog.pg_class'::regclass AND objid = c.oid AND objsubid = 0
      AND refclassid = 'pg_catalog.pg_class'::regclass AND deptype IN ('a', 'i') AND refobjsubid > 0
    OFFSET 0) d
  WHERE c.relkind = 'S' AND c.relowner IS DISTINCT FROM n.wanted),
'att', (SELECT json_agg(json_build_array(a.attrelid::int8, a.attname, a.attacl::text))
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND a.attnum > 0
    AND c.relnamespace IN (SELECT oid FROM managed)),
'inh', (SELECT json_agg(json_build_array(i.inhrelid::int8, i.inhparent::int8))
  FROM pg_catalog.pg_inherits i JOIN {heirs})"
    )
}

fn routines() -> String {
    let extensions = of_extensions("pg_proc");
    format!(
        "'fun', (SELECT json_agg(json_build_array(pronamespace::int8, proowner::int8, proacl::text, prosecdef,
    fixed, oids, names, args))
  FROM (SELECT pronamespace, proowner, proacl, prosecdef,
      coalesce(array_to_string(proconfig, E'\\n') ~ '(^|\\n)search_path=', false) AS fixed,
      array_agg(oid::int8) AS oids, array_agg(proname::text) AS names, array_agg(proargtypes::text) AS args
    FROM pg_catalog.pg_proc
    WHERE pronamespace IN (SELECT oid FROM managed) AND oid NOT IN {extensions}
    GROUP BY pronamespace, proowner, proacl, prosecdef, fixed) f),
'argtypes', (SELECT json_agg(json_build_array(used.oid::int8, t.nspname, t.typname, t.array))
  FROM (SELECT DISTINCT unnest(proargtypes) AS oid FROM pg_catalog.pg_proc
    WHERE pronamespace IN (SELECT oid FROM managed) OFFSET 0) used
  CROSS JOIN LATERAL (SELECT n.nspname, coalesce(e.typname, t.typname) AS typname, e.oid IS NOT NULL AS array
    FROM pg_catalog.pg_type t
    LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
    JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(e.typnamespace, t.typnamespace)
    WHERE t.oid = used.oid OFFSET 0) t)"
    )
}

/// Enums, domains, ranges, base types, and composite types that are not a table's row.
const TYPES: &str = "'ty', (SELECT json_agg(json_build_array(t.oid::int8, t.typnamespace::int8, t.typname,
    t.typowner::int8, t.typacl::text))
  FROM pg_catalog.pg_type t
  WHERE (t.typnamespace IN (SELECT oid FROM managed)) IS TRUE
    AND (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'b' AND t.typcategory <> 'A')
      OR (t.typtype = 'c' AND t.typrelid IN (SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'c')))
    AND t.oid NOT IN (SELECT objid FROM pg_catalog.pg_depend
      WHERE refclassid = 'pg_catalog.pg_extension'::regclass
        AND classid = 'pg_catalog.pg_type'::regclass AND deptype = 'e'))";

/// Looking for extensions that could be installed reads files on the server: only when one is missing.
fn extensions(policy: &Policy) -> String {
    if policy.extensions.is_empty() {
        return "'extavail', NULL".to_owned();
    }
    let names: Vec<String> = policy.extensions.iter().map(|e| literal(e)).collect();
    let names = names.join(", ");
    format!(
        "'extavail', CASE WHEN (SELECT count(*) FROM pg_catalog.pg_extension WHERE extname IN ({names})) < {}
  THEN (SELECT json_agg(json_build_array(e.name, v.trusted OR NOT v.superuser))
    FROM pg_catalog.pg_available_extensions e
    JOIN pg_catalog.pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version
    WHERE e.name IN ({names}) AND e.installed_version IS NULL) END",
        policy.extensions.len()
    )
}

fn settings(policy: &Policy) -> String {
    if policy.settings.is_empty() {
        return "'settings', NULL".to_owned();
    }
    let names: Vec<String> = policy.settings.keys().map(|s| literal(&s.to_lowercase())).collect();
    format!(
        "'settings', (SELECT json_agg(json_build_array(lower(name), setting, unit, context, pending_restart))
  FROM pg_catalog.pg_settings WHERE lower(name) IN ({}))",
        names.join(", ")
    )
}

/// Columns, row security policies and reading views of the tables that the policy names.
const DETAILS: &str = "'detail', (SELECT json_agg(json_build_array(named.oid::int8,
    (SELECT json_agg(attname ORDER BY attnum) FROM pg_catalog.pg_attribute
      WHERE attrelid = named.oid AND attnum > 0 AND NOT attisdropped),
    (SELECT json_agg(json_build_array(p.polname,
        concat_ws(' / ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)),
        (SELECT json_agg(DISTINCT refobjid::int8) FROM pg_catalog.pg_depend
          WHERE classid = 'pg_catalog.pg_policy'::regclass AND objid = p.oid
            AND refclassid = 'pg_catalog.pg_proc'::regclass)) ORDER BY p.polname)
      FROM pg_catalog.pg_policy p WHERE p.polrelid = named.oid),
    (SELECT json_agg(json_build_array(v.oid::int8, n.nspname, v.relname,
        coalesce(v.reloptions::text ~* 'security_invoker=(on|true|yes|1)', false), used.columns)
        ORDER BY n.nspname, v.relname)
      FROM (SELECT r.ev_class, array_agg(DISTINCT a.attname::text) AS columns
          FROM pg_catalog.pg_depend d
          JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND r.ev_class <> named.oid
          JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
          WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass
            AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = named.oid
          GROUP BY r.ev_class) used
      JOIN pg_catalog.pg_class v ON v.oid = used.ev_class AND v.relkind IN ('v', 'm')
      JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace)))
  FROM named)";

/// What the retired roles own or are named by. In other databases only the number is known.
fn dependencies(policy: &Policy) -> String {
    if policy.retired.is_empty() {
        return "'dep', NULL".to_owned();
    }
    let names: Vec<String> = policy.retired.keys().map(|r| literal(r)).collect();
    format!(
        "'dep', (SELECT json_agg(json_build_array(role::int8, datname, owns, objects))
  FROM (SELECT r.oid AS role, d.datname, s.deptype = 'o' AS owns, count(*) AS objects
    FROM pg_catalog.pg_shdepend s
    JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND r.rolname IN ({})
    LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid
    WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass
    GROUP BY r.oid, d.datname, s.deptype = 'o') dep)",
        names.join(", ")
    )
}
