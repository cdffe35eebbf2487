-- What the models declare, made beside what the revisions made, and the differences that Alembic does not see.
-- The migration's own role does this in a savepoint that is taken back: nothing of it stays.

-- Puts every schema aside, under a name of its own, and an empty one in its place. What extensions brought stays.
CREATE FUNCTION obyra_gate.aside() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  each record;
BEGIN
  FOR each IN
    SELECT n.nspname AS named, n.nspowner::regrole AS owner FROM pg_namespace n
     WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'obyra_gate')
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('ALTER SCHEMA %I RENAME TO %I', each.named, 'obyra_aside_' || each.named);
    EXECUTE format('CREATE SCHEMA %I AUTHORIZATION %s', each.named, each.owner);
    EXECUTE format('GRANT ALL ON SCHEMA %I TO PUBLIC', each.named);
  END LOOP;
  FOR each IN
    SELECT e.extname AS named, substr(n.nspname, length('obyra_aside_') + 1) AS home
      FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE n.nspname LIKE 'obyra\_aside\_%'
  LOOP
    EXECUTE format('ALTER EXTENSION %I SET SCHEMA %I', each.named, each.home);
  END LOOP;
END $$;

-- Without the names that schemas bear aside.
CREATE FUNCTION obyra_gate.plain(definition text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$ SELECT replace(definition, 'obyra_aside_', '') $$;

-- [kind, name, as it is, as the models have it], where the two are not the same, and the kinds that the models have
-- any of. What belongs to a table counts only where both have the table: tables are Alembic's to compare.
CREATE FUNCTION obyra_gate.drift() RETURNS json
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET jit = off AS $$
BEGIN
RETURN (
WITH space AS (
  SELECT n.oid, n.nspname LIKE 'obyra\_aside\_%' AS aside FROM pg_namespace n
   WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'obyra_gate')),
rel AS (
  SELECT c.*, s.aside, obyra_gate.plain(c.oid::regclass::text) AS named
    FROM pg_class c JOIN space s ON s.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND c.relpersistence <> 't'
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')),
tab AS (
  SELECT r.* FROM rel r
   WHERE r.relkind IN ('r', 'p') AND EXISTS (
     SELECT FROM rel other WHERE other.relkind IN ('r', 'p') AND other.named = r.named AND other.aside <> r.aside)),
found AS (
  SELECT aside, CASE relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END AS kind, named, obyra_gate.plain(pg_get_viewdef(oid)) AS definition
    FROM rel WHERE relkind IN ('v', 'm')
  UNION ALL
  SELECT aside, 'sequence', named, format('start %s increment %s', s.seqstart, s.seqincrement)
    FROM rel r JOIN pg_sequence s ON s.seqrelid = r.oid
   WHERE relkind = 'S' AND NOT EXISTS (
     SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype IN ('a', 'i'))
  UNION ALL
  SELECT s.aside, CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, obyra_gate.plain(p.oid::regprocedure::text),
         regexp_replace(obyra_gate.plain(pg_get_functiondef(p.oid)), '\s+', ' ', 'g')
    FROM pg_proc p JOIN space s ON s.oid = p.pronamespace
   WHERE p.prokind IN ('f', 'p')
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
  UNION ALL
  SELECT t.aside, 'trigger', format('%I on %s', g.tgname, t.named),
         concat_ws(' ', obyra_gate.plain(pg_get_triggerdef(g.oid)), CASE g.tgenabled WHEN 'O' THEN NULL ELSE 'enabled ' || g.tgenabled::text END)
    FROM tab t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
  UNION ALL
  SELECT t.aside, 'policy', format('%I on %s', p.polname, t.named),
         concat_ws(' ', CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, 'for ' || p.polcmd::text,
           'to ' || (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE r::regrole::text END, ', ' ORDER BY r) FROM unnest(p.polroles) r),
           'using ' || obyra_gate.plain(pg_get_expr(p.polqual, p.polrelid)),
           'with check ' || obyra_gate.plain(pg_get_expr(p.polwithcheck, p.polrelid)))
    FROM tab t JOIN pg_policy p ON p.polrelid = t.oid
  UNION ALL
  SELECT aside, 'row level security', named, concat_ws(', ', 'enabled', CASE WHEN relforcerowsecurity THEN 'forced' END)
    FROM tab WHERE relrowsecurity
  UNION ALL
  -- A sequence's own name says nothing: tables are renamed, their sequences are not.
  SELECT t.aside, CASE WHEN a.attidentity <> '' OR f.expression LIKE 'nextval(%' THEN 'identity' ELSE 'default' END,
         format('%s.%I', t.named, a.attname),
         CASE a.attidentity WHEN 'a' THEN 'identity always' WHEN 'd' THEN 'identity by default'
           ELSE CASE WHEN a.attgenerated <> '' THEN 'generated as ' || f.expression
                     WHEN f.expression LIKE 'nextval(%' AND pg_get_serial_sequence(t.oid::regclass::text, a.attname) IS NOT NULL THEN 'serial'
                     WHEN f.expression LIKE 'nextval(%' THEN f.expression || ', a sequence that the column does not own'
                     ELSE f.expression END END
    FROM tab t
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
   CROSS JOIN LATERAL (SELECT obyra_gate.plain(pg_get_expr(d.adbin, d.adrelid)) AS expression) f
   WHERE f.expression IS NOT NULL OR a.attidentity <> ''
  UNION ALL
  SELECT t.aside, 'index', format('%I on %s', x.relname, t.named), obyra_gate.plain(pg_get_indexdef(i.indexrelid))
    FROM tab t JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class x ON x.oid = i.indexrelid
   WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = t.oid AND k.contype IN ('p', 'u', 'x'))
  UNION ALL
  SELECT t.aside, 'primary key', t.named,
         (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname)
            FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = ANY (k.conkey))
    FROM tab t JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype = 'p'
  UNION ALL
  SELECT t.aside, CASE k.contype WHEN 'x' THEN 'exclusion constraint' WHEN 'u' THEN 'unique constraint' ELSE 'foreign key' END,
         format('%I on %s', k.conname, t.named), replace(obyra_gate.plain(pg_get_constraintdef(k.oid)), ' NOT VALID', '')
    FROM tab t JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype IN ('x', 'u', 'f'))
SELECT json_build_object(
  'kinds', (SELECT coalesce(json_agg(DISTINCT kind), '[]') FROM found WHERE NOT aside),
  'rows', (SELECT coalesce(json_agg(json_build_array(kind, named, here.definition, wanted.definition)), '[]')
             FROM (SELECT * FROM found WHERE aside) here FULL JOIN (SELECT * FROM found WHERE NOT aside) wanted USING (kind, named)
            WHERE here.definition IS DISTINCT FROM wanted.definition)));
END $$;
