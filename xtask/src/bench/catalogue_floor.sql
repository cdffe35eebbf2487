-- The floor of the benchmark: one round trip that reads every role, object and ACL of a database as JSON, and no more.
SELECT json_build_object(
  'roles', (SELECT json_agg(row_to_json(r)) FROM (
      SELECT oid::int8, rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
             rolbypassrls, rolconnlimit, rolvaliduntil, rolconfig FROM pg_roles) r),
  'members', (SELECT json_agg(row_to_json(m)) FROM (
      SELECT roleid::int8, member::int8, grantor::int8, admin_option FROM pg_auth_members) m),
  'settings', (SELECT json_agg(row_to_json(s)) FROM (
      SELECT setdatabase::int8, setrole::int8, setconfig FROM pg_db_role_setting) s),
  'database', (SELECT json_agg(row_to_json(d)) FROM (
      SELECT datname, datdba::int8, datacl::text FROM pg_database WHERE datname = current_database()) d),
  'schemas', (SELECT json_agg(row_to_json(n)) FROM (
      SELECT oid::int8, nspname, nspowner::int8, nspacl::text FROM pg_namespace
      WHERE nspname !~ '^pg_' AND nspname <> 'information_schema') n),
  'relations', (SELECT json_agg(row_to_json(c)) FROM (
      SELECT c.oid::int8, relnamespace::int8, relname, relkind, relowner::int8, relacl::text, relrowsecurity,
             relforcerowsecurity, relispartition
      FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
      WHERE relkind IN ('r','p','v','m','S','f') AND nspname !~ '^pg_' AND nspname <> 'information_schema') c),
  'columns', (SELECT json_agg(row_to_json(a)) FROM (
      SELECT attrelid::int8, attname, attacl::text FROM pg_attribute WHERE attacl IS NOT NULL) a),
  'routines', (SELECT json_agg(row_to_json(p)) FROM (
      SELECT p.oid::int8, pronamespace::int8, p.oid::regprocedure::text, proowner::int8, proacl::text
      FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
      WHERE nspname !~ '^pg_' AND nspname <> 'information_schema') p),
  'types', (SELECT json_agg(row_to_json(t)) FROM (
      SELECT t.oid::int8, typnamespace::int8, typname, typowner::int8, typacl::text
      FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
      WHERE typtype IN ('e','d') AND nspname !~ '^pg_' AND nspname <> 'information_schema') t),
  'default_privileges', (SELECT json_agg(row_to_json(d)) FROM (
      SELECT defaclrole::int8, defaclnamespace::int8, defaclobjtype, defaclacl::text FROM pg_default_acl) d)
)::text
