//! Tables and databases brought back from an earlier moment, beside what there is now.

#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "restore/cut.rs"]
mod cut;
#[allow(dead_code, reason = "shared with other test programs")]
#[path = "restore/live.rs"]
mod live;

use std::sync::Mutex;

use live::Live;
use obyra_backup::Result;
use obyra_backup::restore::{BringBack, Brought, Part, TableName, Target, Wish};
use obyra_evidence::{Exit, Message, Progress};
use obyra_postgres::{Conninfo, Limits, Session};

const SHOP: &str = "
    CREATE SCHEMA app;
    CREATE TYPE app.state AS ENUM ('open', 'paid');
    CREATE TABLE app.customers (id serial PRIMARY KEY, name text NOT NULL);
    CREATE TABLE app.orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int NOT NULL REFERENCES app.customers,
        state app.state NOT NULL DEFAULT 'open', total numeric NOT NULL CHECK (total > 0), note text);
    CREATE INDEX by_customer ON app.orders (customer);
    CREATE TABLE app.lines (order_id bigint REFERENCES app.orders ON DELETE CASCADE, what text);
    CREATE FUNCTION app.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not again'; END $$;
    CREATE STATISTICS app.both ON customer, state FROM app.orders;
    CREATE ROLE app_reader;
    CREATE ROLE shop_owner;
    ALTER FUNCTION app.refuse OWNER TO shop_owner;
    GRANT SELECT ON app.orders TO app_reader;
    ALTER TABLE app.orders ENABLE ROW LEVEL SECURITY;
    CREATE POLICY mine ON app.orders TO app_reader USING (note = 'mine');
    CREATE TABLE app.visits (day date NOT NULL, page text) PARTITION BY RANGE (day);
    CREATE TABLE app.visits_2025 PARTITION OF app.visits FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE TABLE app.visits_2026 PARTITION OF app.visits FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO app.customers (name) SELECT 'customer ' || n FROM generate_series(1, 100) n;
    INSERT INTO app.visits SELECT '2025-12-01'::date + n, 'page ' || n FROM generate_series(1, 60) n;
    CREATE TRIGGER no_delete BEFORE DELETE ON app.customers FOR EACH ROW EXECUTE FUNCTION app.refuse();
    -- As a server of a later release keeps its own mark among a column's options.
    UPDATE pg_attribute SET attoptions = '{n_distinct=5,pg_attver=22158920}'
     WHERE attrelid = 'app.orders'::regclass AND attname = 'customer';
    UPDATE pg_attribute SET attoptions = '{pg_attver=22158921}'
     WHERE attrelid = 'app.orders'::regclass AND attname = 'note'";

const OPTIONS: &str = "SELECT string_agg(attname || ' ' || attoptions::text, ' ') FROM pg_attribute
                        WHERE attrelid = 'app.orders'::regclass AND attoptions IS NOT NULL";

/// Remembers what was noted.
#[derive(Default)]
struct Notes(Mutex<Vec<&'static str>>);

impl Progress for Notes {
    fn begin(&self, _: Message, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn done(&self) {}
    fn note(&self, what: Message) {
        self.0.lock().unwrap().push(what.code().id());
    }
}

struct Shop {
    live: Live,
    target: Conninfo,
    before: Target,
    notes: Notes,
}

impl Shop {
    /// A database with orders, another with work of its own, and a mistake in the first after the backup.
    async fn open() -> Shop {
        let mut live = Live::start(16).await;
        live.run("CREATE DATABASE shop").await;
        live.run("CREATE DATABASE other").await;
        let target = live.cluster.admin().with_database("shop");
        let shop = Session::connect(&target, Limits::default()).await.unwrap();
        shop.batch_execute(SHOP).await.unwrap();
        let other = live.cluster.admin().with_database("other");
        let other = Session::connect(&other, Limits::default()).await.unwrap();
        let work = "CREATE TABLE work AS SELECT n, repeat(md5(n::text), 9) AS filler FROM generate_series(1, 20000) n;
                    CREATE INDEX ON work (n); CREATE INDEX ON work USING gin (string_to_array(filler, '0'));
                    CREATE INDEX ON work USING hash (filler); CREATE INDEX ON work USING brin (n)";
        other.batch_execute(work).await.unwrap();
        live.run("CHECKPOINT").await;
        live.backup().await;
        // Work of all kinds in the database that nobody will ask for.
        for sql in [
            "UPDATE work SET filler = reverse(filler) WHERE n % 7 = 0",
            "DELETE FROM work WHERE n % 5 = 0",
            "VACUUM work",
            "INSERT INTO work SELECT n, 'new' FROM generate_series(1, 5000) n",
            "CLUSTER work USING work_n_idx",
            "VACUUM FULL work",
            "DELETE FROM work WHERE n > 15000",
            "VACUUM (FREEZE) work",
            "REINDEX TABLE work",
        ] {
            other.batch_execute(sql).await.unwrap();
        }
        shop.batch_execute(
            "INSERT INTO app.orders (customer, total, state) SELECT 1 + n % 100, n, 'paid' FROM generate_series(1, 500) n;
             INSERT INTO app.lines SELECT id, 'line' FROM app.orders",
        )
        .await
        .unwrap();
        let before = Target::Time(live.now().await);
        shop.batch_execute("DELETE FROM app.orders WHERE total > 10").await.unwrap();
        live.archive().await;
        Shop { live, target, before, notes: Notes::default() }
    }

    async fn bring(&self, part: Part) -> Result<Brought> {
        let plan = self.live.plan(Wish::to(self.before.clone())).await.unwrap();
        let manifest = self.live.manifest(&plan).await;
        let bring = BringBack {
            stage: self.live.stage(),
            plan: &plan,
            manifest: &manifest,
            database: "shop",
            part: &part,
            target: &self.target,
        };
        assert!(bring.words().len() >= 4);
        bring.run(&self.notes).await
    }

    async fn ask(&self, database: &str, sql: &str) -> String {
        let session =
            Session::connect(&self.target.with_database(database), Limits::default()).await.unwrap();
        session.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap().get(0)
    }
}

fn table(schema: &str, name: &str) -> TableName {
    TableName { schema: schema.to_owned(), name: name.to_owned() }
}

#[tokio::test]
async fn tables_come_back_into_a_schema_of_their_own() {
    let shop = Shop::open().await;
    let part = Part::Tables {
        tables: vec![table("app", "orders"), table("app", "visits"), table("app", "customers")],
        schema: "Rescued 24".to_owned(),
    };
    let brought = shop.bring(part.clone()).await.unwrap();
    let tables: Vec<(&str, u64)> = brought.tables.iter().map(|one| (one.table.as_str(), one.rows)).collect();
    assert_eq!(
        tables,
        [
            ("\"Rescued 24\".customers", 100),
            ("\"Rescued 24\".orders", 500),
            ("\"Rescued 24\".visits", 0),
            ("\"Rescued 24\".visits_2025", 30),
            ("\"Rescued 24\".visits_2026", 30),
        ]
    );
    assert!(brought.bytes > 10_000);
    assert!(shop.notes.0.lock().unwrap().is_empty(), "the other database was not needed");
    // What is there now was not touched, and what came back is whole: keys, checks, identity, partitions.
    assert_eq!(shop.ask("shop", "SELECT count(*) FROM app.orders").await, "10");
    assert_eq!(shop.ask("shop", "SELECT sum(total) FROM \"Rescued 24\".orders").await, "125250");
    assert_eq!(shop.ask("shop", "SELECT count(*) FROM \"Rescued 24\".visits").await, "60");
    let constraints = "SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint c
                        WHERE connamespace = '\"Rescued 24\"'::regnamespace AND contype IN ('p', 'c', 'f')";
    assert_eq!(shop.ask("shop", constraints).await, "customers_pkey orders_pkey orders_total_check");
    // A recovered sequence may have skipped some numbers, and never repeats one.
    let next = "SELECT nextval(pg_get_serial_sequence('\"Rescued 24\".orders', 'id')) > 500";
    assert_eq!(shop.ask("shop", next).await, "true");
    let open_to_others = "SELECT has_table_privilege('app_reader', '\"Rescued 24\".orders', 'SELECT')";
    assert_eq!(shop.ask("shop", open_to_others).await, "false");
    // A second time the name is taken.
    let refused = shop.bring(part).await.unwrap_err();
    assert_eq!((refused.exit, refused.what.code().id()), (Exit::Refused, "backup.part-taken"));
}

#[tokio::test]
async fn a_table_comes_back_beside_the_one_that_there_is() {
    let shop = Shop::open().await;
    let beside = |name: &str| Part::Table {
        table: table("app", name),
        name: table("app", &format!("{name}_restored")),
    };
    let brought = shop.bring(beside("orders")).await.unwrap();
    assert_eq!((brought.tables[0].table.as_str(), brought.tables[0].rows), ("app.orders_restored", 500));
    let indexes = "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'orders_restored'";
    assert_eq!(shop.ask("shop", indexes).await, "by_customer_orders_restored orders_restored_pkey");
    assert_eq!(shop.ask("shop", "SELECT count(*) FROM app.orders").await, "10");
    let options = OPTIONS.replace("app.orders", "app.orders_restored");
    assert_eq!(shop.ask("shop", &options).await, "customer {n_distinct=5}");
    let partitioned = shop.bring(beside("visits")).await.unwrap_err();
    assert_eq!(partitioned.what.code().id(), "backup.part-partitioned");
    let absent = shop.bring(beside("never")).await.unwrap_err();
    assert_eq!(absent.what.code().id(), "backup.part-no-table");
}

#[tokio::test]
async fn a_database_comes_back_beside_the_one_that_there_is() {
    let shop = Shop::open().await;
    let part = Part::Database { name: "shop before".to_owned() };
    let brought = shop.bring(part.clone()).await.unwrap();
    assert_eq!(brought.missing_roles, Vec::<String>::new());
    assert_eq!(brought.tables.iter().map(|one| one.rows).sum::<u64>(), 100 + 500 + 500 + 60);
    assert_eq!(shop.ask("shop before", "SELECT count(*) FROM app.orders").await, "500");
    assert_eq!(shop.ask("shop before", OPTIONS).await, "customer {n_distinct=5}");
    assert_eq!(
        shop.ask("shop before", "SELECT has_table_privilege('app_reader', 'app.orders', 'SELECT')").await,
        "true"
    );
    assert_eq!(shop.ask("shop", "SELECT count(*) FROM app.orders").await, "10");
    let refused = shop.bring(part).await.unwrap_err();
    assert_eq!(refused.what.code().id(), "backup.part-taken");
}

#[tokio::test]
async fn what_does_not_arrive_whole_does_not_arrive_at_all() {
    let shop = Shop::open().await;
    let target = Session::connect(&shop.target, Limits::default()).await.unwrap();
    // Its type went since: the target cannot take the table.
    target.batch_execute("ALTER TYPE app.state RENAME TO status").await.unwrap();
    let part = Part::Tables {
        tables: vec![table("app", "customers"), table("app", "orders")],
        schema: "back".to_owned(),
    };
    let failure = shop.bring(part).await.unwrap_err();
    assert_eq!(failure.what.code().id(), "backup.part-load");
    assert!(failure.why.unwrap().contains("app.state"));
    assert_eq!(shop.ask("shop", "SELECT count(*) FROM pg_namespace WHERE nspname = 'back'").await, "0");
    // A role that went since: a policy names it, and the failure says which one to make.
    target.batch_execute("DROP OWNED BY app_reader; DROP ROLE app_reader").await.unwrap();
    let part = Part::Database { name: "back".to_owned() };
    let failure = shop.bring(part.clone()).await.unwrap_err();
    assert!(failure.why.unwrap().contains("role \"app_reader\" does not exist"));
    assert_eq!(failure.mend.unwrap().fields()["roles"], "app_reader");
    assert_eq!(shop.ask("shop", "SELECT count(*) FROM pg_database WHERE datname = 'back'").await, "0");
    // A role that only was granted something is left out with the privileges, and that is told.
    target.batch_execute("CREATE ROLE app_reader").await.unwrap();
    target.batch_execute("ALTER ROLE shop_owner RENAME TO somebody").await.unwrap();
    let brought = shop.bring(part).await.unwrap();
    assert_eq!(brought.missing_roles, ["shop_owner"]);
}
