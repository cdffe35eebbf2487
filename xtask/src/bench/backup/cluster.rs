//! The cluster that is backed up: text, JSON and numbers that compress about 2.5 times, and its days.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use obyra_evidence::Quiet;
use obyra_postgres::cluster::{Installation, Search, TemporaryCluster, TemporaryOptions};
use obyra_postgres::{Conninfo, Limits, Session};

/// The cluster, and a folder for all that the benchmark writes.
pub struct Bench {
    cluster: TemporaryCluster,
    folder: tempfile::TempDir,
    pub cache: PathBuf,
}

const SCHEMA: &str = "
    CREATE TABLE word (n int PRIMARY KEY, w text);
    INSERT INTO word SELECT i, substr(translate(md5(i::text), '0123456789', 'ghijklmnop'), 1, 3 + i % 7)
      FROM generate_series(0, 8191) i;
    CREATE TABLE passage AS
      SELECT p AS n, string_agg(w, ' ' ORDER BY g) AS t
        FROM generate_series(0, 4095) AS a (p) CROSS JOIN generate_series(1, 220) AS b (g)
        JOIN word ON word.n = (('x' || substr(md5((p * 1000 + g)::text), 1, 7))::bit(28)::int) % 8192
       GROUP BY p;
    CREATE INDEX ON passage (n);
    CREATE TABLE document (id bigserial PRIMARY KEY, tenant int NOT NULL, title text, body text, meta jsonb,
      amount numeric(14, 2), price float8, at timestamptz NOT NULL, key uuid);
    CREATE INDEX document_tenant ON document (tenant, at);
    CREATE INDEX document_key ON document (key);
    CREATE TABLE line (id bigserial PRIMARY KEY, document bigint, quantity int, amount numeric(12, 2), note text);
    CREATE INDEX line_document ON line (document);";

/// `{n}` more documents, with three lines each. One passage serves many documents, cut at a different place each
/// time: real text repeats its words, and making it word by word would take longer than the benchmark. Those that
/// share a passage lie 5 MB apart, further than zstd looks back at level 1.
const INSERT: &str = "
    WITH made AS (
      INSERT INTO document (tenant, title, body, meta, amount, price, at, key)
      SELECT (random() * 500)::int, substr(t, 1 + (random() * 900)::int, 40),
             substr(t, 1 + (random() * 400)::int, 300 + (random() * 700)::int),
             jsonb_build_object('state', (ARRAY['open', 'sent', 'paid'])[1 + (random() * 2)::int], 'score',
               random(), 'tags', jsonb_build_array(substr(t, 1 + (random() * 900)::int, 9), i)),
             (random() * 1e6)::numeric(14, 2), random(), now() - random() * interval '900 days', gen_random_uuid()
        FROM generate_series(1, {n}) i JOIN passage ON passage.n = (i::bigint * 7919) % 4096
       ORDER BY i
      RETURNING id)
    INSERT INTO line (document, quantity, amount, note)
    SELECT id, (random() * 90)::int, (random() * 1e5)::numeric(12, 2), md5(random()::text) FROM made,
      generate_series(1, 3)";

/// Documents in a gigabyte, with their lines and indexes.
const PER_GIGABYTE: f64 = 690_000.0;

impl Bench {
    /// Makes the cluster, with so much in it.
    pub async fn prepare(major: u32, gigabytes: f64) -> Result<Bench> {
        let cache = std::path::absolute("target/obyra-db-cache")?;
        let search = Search { bin_dir: None, cache: cache.clone(), major };
        let installation = Installation::find_or_fetch(&search, &Quiet).await?;
        let settings = [
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("shared_buffers", "256MB"),
            ("max_wal_size", "4GB"),
            ("autovacuum", "off"),
            ("wal_level", "replica"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = TemporaryOptions { settings, ..TemporaryOptions::default() };
        let cluster = TemporaryCluster::start_with(&installation, &cache, &options).await?;
        let bench = Bench { cluster, folder: tempfile::tempdir()?, cache };
        open(bench.folder.path())?;
        bench.run("CREATE DATABASE shop", "postgres").await?;
        bench.run(SCHEMA, "shop").await?;
        let batch = 50_000.0_f64.min(gigabytes * PER_GIGABYTE);
        let batches = (gigabytes * PER_GIGABYTE / batch).ceil() as u64;
        for _ in 0..batches {
            bench.run(&INSERT.replace("{n}", &(batch as u64).to_string()), "shop").await?;
        }
        bench.run("VACUUM (FREEZE, ANALYZE)", "shop").await?;
        bench.run("CHECKPOINT", "shop").await?;
        Ok(bench)
    }

    /// A day: 1 % inserted, 0.5 % updated at the end of the table (hot), 0.5 % anywhere.
    pub async fn day(&self, seed: u32) -> Result<()> {
        let session = self.session("shop").await?;
        let rows: i64 = session.query_one("SELECT count(*) FROM document", &[]).await?.get(0);
        session.batch_execute(&INSERT.replace("{n}", &(rows / 100).to_string())).await?;
        let hot = format!(
            "UPDATE document SET amount = amount + 1, meta = meta || '{{\"state\": \"paid\"}}'
              WHERE id > (SELECT max(id) FROM document) - {}",
            rows / 200
        );
        let anywhere = format!(
            "SELECT setseed(0.{seed:03}); UPDATE document SET price = price + 1 WHERE id IN
               (SELECT (random() * {rows})::bigint FROM generate_series(1, {}))",
            rows / 200
        );
        session.batch_execute(&hot).await?;
        session.batch_execute(&anywhere).await?;
        session.batch_execute("CHECKPOINT").await?;
        Ok(())
    }

    /// So many segments that hold a day's work, in `pg_wal`, the newest left out.
    pub async fn segments(&self, count: usize) -> Result<Vec<PathBuf>> {
        let pg_wal = PathBuf::from(self.data()).join("pg_wal");
        let session = self.session("shop").await?;
        session.batch_execute("CREATE TABLE copy (LIKE document)").await?;
        let first = last_switched(&session).await?;
        loop {
            session.batch_execute("INSERT INTO copy SELECT * FROM document LIMIT 100000").await?;
            let last = last_switched(&session).await?;
            let mut found: Vec<PathBuf> = std::fs::read_dir(&pg_wal)?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| {
                    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    name.len() == 24 && *name > *first && *name < *last
                })
                .collect();
            if found.len() >= count {
                found.sort();
                found.truncate(count);
                return Ok(found);
            }
        }
    }

    /// The data directory.
    pub fn data(&self) -> String {
        self.cluster.dir().join("data").display().to_string()
    }

    /// Bytes of the data directory, without its WAL.
    pub fn bytes(&self) -> Result<u64> {
        let all = size_of(Path::new(&self.data()))?;
        Ok(all - size_of(&Path::new(&self.data()).join("pg_wal"))?)
    }

    /// The server's version.
    pub fn version(&self) -> &str {
        &self.cluster.installation().version
    }

    /// The superuser.
    pub fn admin(&self) -> Conninfo {
        self.cluster.admin().with_database("shop")
    }

    /// A path in the benchmark's folder.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A session on a database.
    pub async fn session(&self, database: &str) -> Result<Session> {
        Ok(Session::connect(&self.cluster.admin().with_database(database), Limits::patient()).await?)
    }

    async fn run(&self, sql: &str, database: &str) -> Result<()> {
        self.session(database)
            .await?
            .batch_execute(sql)
            .await
            .with_context(|| sql.lines().next().unwrap_or("").to_owned())
    }
}

async fn last_switched(session: &Session) -> Result<String> {
    let sql = "SELECT pg_walfile_name(pg_switch_wal())";
    Ok(session.query_one(sql, &[]).await?.get(0))
}

/// The server's user and pgBackRest's must come in.
fn open(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).map_err(Into::into)
}

/// Bytes of all files below a folder.
pub fn size_of(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { size_of(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}
