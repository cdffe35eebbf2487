//! Temporary clusters, on the real thing.

use std::time::Instant;

use obyra_postgres::cluster::for_tests;
use obyra_postgres::{Limits, Session};

#[tokio::test]
async fn a_cluster_is_ready_and_gone_when_dropped() {
    let begun = Instant::now();
    let cluster = for_tests().await;
    println!("started in {:?}", begun.elapsed());
    let begun = Instant::now();
    for target in [cluster.admin(), cluster.loopback()] {
        let session = Session::connect(&target, Limits::default()).await.unwrap();
        let row = session.query_one("SELECT current_user::text, current_setting('data_checksums')", &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "postgres");
        assert_eq!(row.get::<_, String>(1), "on");
    }
    println!("connected in {:?}", begun.elapsed());
    let dir = cluster.dir().to_path_buf();
    assert!(dir.is_dir());
    let begun = Instant::now();
    drop(cluster);
    println!("dropped in {:?}", begun.elapsed());
    assert!(!dir.exists());
}
