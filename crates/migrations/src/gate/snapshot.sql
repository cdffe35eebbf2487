-- Comments are read from their table: obj_description() is a function of its own for each object.
-- The catalogue as a list of [relation, object, name, definition], without owners and privileges, which are
-- the access room's, and without what an extension brought. Names are always qualified: search_path is empty.
CREATE FUNCTION obyra_gate.snapshot(relations oid[], other boolean, ours oid[]) RETURNS json
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan SET jit = off AS $$
BEGIN
RETURN (SELECT json_agg(json_build_array(relation::bigint, object::bigint, name, definition)) FROM (
WITH rel AS (
  SELECT c.*, format('%I.%I', n.nspname, c.relname) AS named
    FROM unnest(relations) AS wanted(oid) JOIN pg_class c ON c.oid = wanted.oid JOIN pg_namespace n ON n.oid = c.relnamespace)
SELECT c.oid::bigint AS relation, c.oid::bigint AS object,
       CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' WHEN 'S' THEN 'sequence ' ELSE 'table ' END || c.named AS name,
       concat_ws(' ', CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
         CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
         CASE WHEN c.relkind = 'p' THEN 'partitioned by ' || pg_get_partkeydef(c.oid) END,
         CASE WHEN c.relispartition THEN 'partition ' || pg_get_expr(c.relpartbound, c.oid) END,
         (SELECT 'inherits ' || string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid),
         'with ' || array_to_string(c.reloptions, ', '),
         CASE WHEN c.relrowsecurity THEN 'row level security' END,
         CASE WHEN c.relforcerowsecurity THEN 'forced' END,
         CASE WHEN c.relreplident NOT IN ('d', 'n') THEN 'replica identity ' || c.relreplident::text END,
         (SELECT concat('as ', format_type(s.seqtypid, NULL), ' start ', s.seqstart, ' increment ', s.seqincrement, ' from ', s.seqmin,
                        ' to ', s.seqmax, ' cache ', s.seqcache, CASE WHEN s.seqcycle THEN ' cycle' END)
            FROM pg_sequence s WHERE s.seqrelid = c.oid),
         (SELECT 'owned by ' || d.refobjid::regclass || '.' || a.attname
            FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
           WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')),
         'comment ' || (SELECT quote_literal(said.description) FROM pg_description said
           WHERE said.objoid = c.oid AND said.classoid = 'pg_class'::regclass AND said.objsubid = 0)) AS definition
  FROM rel c
UNION ALL
SELECT c.oid, NULL, format('column %s.%I', c.named, a.attname),
       concat_ws(' ', format_type(a.atttypid, a.atttypmod),
         CASE WHEN a.attcollation <> t.typcollation THEN 'collate ' || a.attcollation::regcollation END,
         CASE WHEN a.attnotnull THEN 'not null' END,
         CASE WHEN a.attgenerated = '' THEN 'default ' ELSE 'generated as ' END || pg_get_expr(d.adbin, d.adrelid),
         CASE a.attidentity WHEN 'a' THEN 'identity always' WHEN 'd' THEN 'identity by default' END,
         -- The server's own mark (since 15.20) differs each time a table is made.
         'options ' || nullif(array_to_string(ARRAY(SELECT o FROM unnest(a.attoptions) o WHERE o !~ '^pg_attver='), ', '), ''),
         'comment ' || (SELECT quote_literal(said.description) FROM pg_description said
           WHERE said.objoid = c.oid AND said.classoid = 'pg_class'::regclass AND said.objsubid = a.attnum))
  FROM rel c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind NOT IN ('S', 'v', 'm')
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
UNION ALL
SELECT c.oid, k.oid, format('constraint %I on %s', k.conname, c.named),
       concat_ws(' ', pg_get_constraintdef(k.oid), 'comment ' || (SELECT quote_literal(said.description) FROM pg_description said
           WHERE said.objoid = k.oid AND said.classoid = 'pg_constraint'::regclass AND said.objsubid = 0))
  FROM rel c JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype NOT IN ('n', 't')
UNION ALL
SELECT c.oid, i.indexrelid, format('index %I on %s', x.relname, c.named),
       concat_ws(' ', pg_get_indexdef(i.indexrelid), CASE WHEN NOT i.indisvalid THEN 'invalid' END,
         CASE WHEN i.indisreplident THEN 'replica identity' END, CASE WHEN i.indisclustered THEN 'clustered' END,
         'comment ' || (SELECT quote_literal(said.description) FROM pg_description said
           WHERE said.objoid = i.indexrelid AND said.classoid = 'pg_class'::regclass AND said.objsubid = 0))
  FROM rel c JOIN pg_index i ON i.indrelid = c.oid JOIN pg_class x ON x.oid = i.indexrelid
 WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x'))
UNION ALL
SELECT c.oid, t.oid, format('trigger %I on %s', t.tgname, c.named), concat_ws(' ', pg_get_triggerdef(t.oid),
         CASE t.tgenabled WHEN 'O' THEN NULL ELSE 'enabled ' || t.tgenabled::text END)
  FROM rel c JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal
UNION ALL
SELECT c.oid, p.oid, format('policy %I on %s', p.polname, c.named),
       concat_ws(' ', CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, 'for ' || p.polcmd::text,
         'to ' || (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE r::regrole::text END, ', ' ORDER BY r) FROM unnest(p.polroles) r),
         'using ' || pg_get_expr(p.polqual, p.polrelid), 'with check ' || pg_get_expr(p.polwithcheck, p.polrelid))
  FROM rel c JOIN pg_policy p ON p.polrelid = c.oid
UNION ALL
SELECT c.oid, r.oid, format('rule %I on %s', r.rulename, c.named), pg_get_ruledef(r.oid)
  FROM rel c JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename <> '_RETURN'
UNION ALL
SELECT 0, n.oid, format('schema %I', n.nspname), concat_ws(' ', 'comment ' || (SELECT quote_literal(said.description) FROM pg_description said
           WHERE said.objoid = n.oid AND said.classoid = 'pg_namespace'::regclass AND said.objsubid = 0))
  FROM pg_namespace n WHERE other AND n.oid = ANY (ours)
UNION ALL
SELECT 0, t.oid, format('%s %I.%I', CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' ELSE 'type' END, t.typnamespace::regnamespace::text, t.typname),
       concat_ws(' ', (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
         CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) || CASE WHEN t.typnotnull THEN ' not null' ELSE '' END END,
         'default ' || t.typdefault,
         (SELECT string_agg(k.conname || ' ' || pg_get_constraintdef(k.oid), ', ' ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype <> 'n'),
         (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
            FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
         (SELECT format_type(r.rngsubtype, NULL) FROM pg_range r WHERE r.rngtypid = t.oid),
         'comment ' || (SELECT quote_literal(said.description) FROM pg_description said
           WHERE said.objoid = t.oid AND said.classoid = 'pg_type'::regclass AND said.objsubid = 0))
  FROM pg_type t
 WHERE other AND t.typtype IN ('e', 'd', 'c', 'r') AND t.typnamespace = ANY (ours)
   AND (t.typtype <> 'c' OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
UNION ALL
SELECT 0, p.oid, format('%s %s', CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END, p.oid::regprocedure),
       concat_ws(' ', CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END, 'comment ' || (SELECT quote_literal(said.description) FROM pg_description said
           WHERE said.objoid = p.oid AND said.classoid = 'pg_proc'::regclass AND said.objsubid = 0))
  FROM pg_proc p
 WHERE other AND p.pronamespace = ANY (ours)
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT 0, e.oid, format('extension %I', e.extname), e.extversion FROM pg_extension e WHERE other
) objects);
END $$;

-- What changed since the last look. A dropped relation returns no rows, so that the caller is told what was looked at.
-- Children follow their parents, which alone are reported.
CREATE FUNCTION obyra_gate.look(everything boolean) RETURNS json
LANGUAGE plpgsql SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE
  touched text[] := string_to_array(trim(coalesce(current_setting('obyra_gate.touched', true), '')), ' ');
  other boolean := everything OR 'other' = ANY (touched);
  oids oid[] := array_remove(touched, 'other')::oid[];
  ours oid[];
  relations oid[];
BEGIN
  PERFORM set_config('obyra_gate.touched', '', false);
  IF NOT everything AND cardinality(touched) = 0 THEN
    RETURN json_build_object('looked_at', '[]'::json, 'other', false, 'rows', '[]'::json);
  END IF;
  ours := ARRAY(SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'obyra_gate'));
  IF everything THEN
    relations := ARRAY(SELECT oid FROM pg_class WHERE relnamespace = ANY (ours) AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
                          AND relpersistence <> 't');
  ELSE
    relations := ARRAY(
      WITH RECURSIVE family AS (
        SELECT c.oid FROM pg_class c
         WHERE c.oid = ANY (oids) AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
           AND c.relpersistence <> 't' AND c.relnamespace = ANY (ours)
        UNION SELECT i.inhrelid FROM pg_inherits i JOIN family f ON f.oid = i.inhparent)
      SELECT oid FROM family);
  END IF;
  RETURN json_build_object('looked_at', (oids || relations)::bigint[], 'other', other, 'everything', everything,
                           'rows', coalesce(obyra_gate.snapshot(relations, other, ours), '[]'::json));
END $$;
