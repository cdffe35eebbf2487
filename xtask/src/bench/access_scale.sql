-- A database of the size that a grown application has: {tables} tables with a sequence each, in {schemas} schemas,
-- {owners} owners, {groups} groups, {logins} roles that log in; four groups have rights in each schema.
DO $$
DECLARE i int; s int; g int; owner text; writes boolean;
BEGIN
  FOR i IN 1..{owners} LOOP EXECUTE format('CREATE ROLE own%s NOLOGIN', i); END LOOP;
  FOR i IN 1..{groups} LOOP EXECUTE format('CREATE ROLE grp%s NOLOGIN', i); END LOOP;
  FOR i IN 1..{logins} LOOP
    EXECUTE format('CREATE ROLE usr%s LOGIN', i);
    EXECUTE format('GRANT grp%s TO usr%s', 1 + (i % {groups}), i);
  END LOOP;
  COMMIT;
  FOR s IN 1..{schemas} LOOP
    owner := format('own%s', 1 + (s % {owners}));
    EXECUTE format('CREATE SCHEMA s%s AUTHORIZATION %s', s, owner);
    EXECUTE format('SET ROLE %s', owner);
    FOR i IN 1..{tables} / {schemas} LOOP
      EXECUTE format('CREATE TABLE s%s.t%s (id serial PRIMARY KEY, org_id int, name text, amount numeric, created timestamptz)', s, i);
      IF i % 200 = 0 THEN COMMIT; EXECUTE format('SET ROLE %s', owner); END IF;
    END LOOP;
    FOR i IN 1..10 LOOP
      EXECUTE format('CREATE VIEW s%s.v%s AS SELECT id, name FROM s%s.t%s', s, i, s, i);
      EXECUTE format('CREATE FUNCTION s%s.f%s(a int) RETURNS int LANGUAGE sql AS ''SELECT $1''', s, i);
    END LOOP;
    RESET ROLE;
    COMMIT;
    FOR g IN 0..3 LOOP
      writes := g < 2;
      EXECUTE format('GRANT USAGE ON SCHEMA s%s TO grp%s', s, 1 + ((s * 2 + g) % {groups}));
      EXECUTE format('GRANT %s ON ALL TABLES IN SCHEMA s%s TO grp%s',
        CASE WHEN writes THEN 'SELECT,INSERT,UPDATE,DELETE' ELSE 'SELECT' END, s, 1 + ((s * 2 + g) % {groups}));
      EXECUTE format('GRANT %s ON ALL SEQUENCES IN SCHEMA s%s TO grp%s',
        CASE WHEN writes THEN 'USAGE,SELECT' ELSE 'SELECT' END, s, 1 + ((s * 2 + g) % {groups}));
      EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %s IN SCHEMA s%s GRANT %s ON TABLES TO grp%s', owner, s,
        CASE WHEN writes THEN 'SELECT,INSERT,UPDATE,DELETE' ELSE 'SELECT' END, 1 + ((s * 2 + g) % {groups}));
      EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %s IN SCHEMA s%s GRANT %s ON SEQUENCES TO grp%s', owner, s,
        CASE WHEN writes THEN 'USAGE,SELECT' ELSE 'SELECT' END, 1 + ((s * 2 + g) % {groups}));
    END LOOP;
    COMMIT;
  END LOOP;
END $$
