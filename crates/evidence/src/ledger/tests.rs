//! What cannot be tried from outside: a full disk.

use super::*;
use crate::Outcome;

#[test]
fn a_full_disk_is_named_and_leaves_the_chain_whole() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.sqlite")).unwrap();
    let mut record = Record {
        at: Timestamp::UNIX_EPOCH,
        environment: "dev".into(),
        subject: "access.apply".into(),
        expected: String::new(),
        observed: "x".repeat(2_000),
        outcome: Outcome::Changed,
        figures: [("steps".to_owned(), f64::NAN)].into(),
        facts: Default::default(),
    };
    let refused = ledger.append(&record).unwrap_err();
    assert_eq!(refused.what.code().id(), "evidence.ledger-figure");

    record.figures.clear();
    // SQLite reports a page limit exactly as it reports ENOSPC.
    ledger.store.lock().pragma_update(None, "max_page_count", 20).unwrap();
    let full = (0..100).find_map(|_| ledger.append(&record).err()).unwrap();
    assert_eq!(full.what.code().id(), "evidence.ledger-full");
    assert!(full.mend.is_some());
    assert!(ledger.verify().unwrap().records > 0);
}
