use obyra_postgres::wal::TimelineId;
use proptest::prelude::*;

use super::*;

const CLUSTER: ClusterId = ClusterId(7_300_000_000_000_000_001);

fn size() -> WalSegmentSize {
    WalSegmentSize::new(1 << 20).unwrap()
}

fn segment() -> SegmentName {
    SegmentName { timeline: TimelineId(3), number: 4097 }
}

/// A segment as the server writes it, with so many pages in use.
pub fn made(cluster: ClusterId, segment: SegmentName, size: WalSegmentSize, used: usize) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size.bytes()).unwrap()];
    for (nth, page) in bytes.chunks_mut(8192).take(used).enumerate() {
        page.fill(0xA5);
        page[..2].copy_from_slice(&0xD113_u16.to_le_bytes());
        page[2..4].copy_from_slice(&(if nth == 0 { IS_LONG } else { 0 }).to_le_bytes());
        page[4..8].copy_from_slice(&segment.timeline.0.to_le_bytes());
        let address = segment.start(size).0 + nth as u64 * 8192;
        page[8..16].copy_from_slice(&address.to_le_bytes());
        if nth == 0 {
            page[24..32].copy_from_slice(&cluster.0.to_le_bytes());
            page[32..36].copy_from_slice(&u32::try_from(size.bytes()).unwrap().to_le_bytes());
            page[36..40].copy_from_slice(&8192_u32.to_le_bytes());
        }
    }
    bytes
}

fn good(used: usize) -> Vec<u8> {
    made(CLUSTER, segment(), size(), used)
}

fn verdict(bytes: &[u8]) -> std::result::Result<(), Fault> {
    PageCheck::new(CLUSTER, segment(), size()).whole(bytes)
}

#[test]
fn a_segment_is_good_whether_full_or_left_early() {
    assert_eq!(verdict(&good(128)), Ok(()));
    assert_eq!(verdict(&good(5)), Ok(()), "after a switch of segments the rest is zeros");
    let header = SegmentHeader::read(&good(1)).unwrap();
    assert_eq!((header.cluster, header.size), (CLUSTER, size()));
}

#[test]
fn the_first_page_names_its_cluster_and_position() {
    let of_another = made(ClusterId(1), segment(), size(), 128);
    assert_eq!(verdict(&of_another), Err(Fault::OtherCluster(ClusterId(1))));
    let next = made(CLUSTER, segment().next(), size(), 128);
    assert_eq!(verdict(&next), Err(Fault::OtherPosition { offset: 0 }));
    let mut larger = good(128);
    larger[32..36].copy_from_slice(&(16_u32 << 20).to_le_bytes());
    assert_eq!(verdict(&larger), Err(Fault::OtherSize(WalSegmentSize::DEFAULT)));
    assert_eq!(verdict(&vec![0; 1 << 20]), Err(Fault::NotWal));
    assert_eq!(verdict(&good(128)[..8192]), Err(Fault::Length(8192)));
    assert_eq!(verdict(&[good(128), vec![0]].concat()), Err(Fault::Length((1 << 20) + 1)));
}

#[test]
fn a_page_from_before_the_segment_was_recycled_is_seen() {
    let mut recycled = good(128);
    let old = made(CLUSTER, SegmentName { number: 4000, ..segment() }, size(), 128);
    recycled[64 * 8192..].copy_from_slice(&old[64 * 8192..]);
    assert_eq!(verdict(&recycled), Err(Fault::OtherPosition { offset: 64 * 8192 }));
    let mut torn = good(64);
    *torn.last_mut().unwrap() = 1;
    assert_eq!(verdict(&torn), Err(Fault::NotEmpty { offset: 64 * 8192 }));
    let mut hole = good(128);
    hole[9 * 8192..10 * 8192].fill(0);
    assert_eq!(verdict(&hole), Err(Fault::NotEmpty { offset: 9 * 8192 }));
}

/// Writes a switch of segments, of which so many bytes are on the page in use that begins there, and zeros
/// after it.
fn switch(bytes: &mut [u8], page: usize, here: usize, at: usize) {
    let mut record = [0; 24];
    record[0] = 24;
    record[8..16].copy_from_slice(&0x1234_5678_u64.to_le_bytes());
    record[16] = 0x40;
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, &record[..20]) as u32;
    record[20..].copy_from_slice(&crc.to_le_bytes());
    let (begun, rest) = record.split_at(24 - here);
    bytes[page - begun.len()..page].copy_from_slice(begun);
    bytes[page + at..page + at + here].copy_from_slice(rest);
    bytes[page + at + here..page + 8192].fill(0);
}

#[test]
fn behind_a_switch_that_a_crash_cut_off_anything_may_lie() {
    let junk = made(CLUSTER, SegmentName { number: 17, ..segment() }, size(), 128);
    for (here, at) in [(24, 24), (24, 4000), (24, 8192 - 24), (16, 24), (8, 24)] {
        for zeros in [0, 10] {
            let mut left = good(5);
            switch(&mut left, 4 * 8192, here, at);
            left[(5 + zeros) * 8192..].copy_from_slice(&junk[(5 + zeros) * 8192..]);
            assert_eq!(verdict(&left), Ok(()), "{here} at {at}, {zeros}");
            let mut growing = PageCheck::new(CLUSTER, segment(), size());
            assert_eq!((1..=16).try_for_each(|parts| growing.advance(&left[..parts << 16])), Ok(()));
            // One bit of the record is another.
            left[4 * 8192 + at] ^= 1;
            assert!(verdict(&left).is_err(), "{here} at {at}, {zeros}");
        }
    }
    // At the edge of what is read at once.
    let two = WalSegmentSize::new(2 << 20).unwrap();
    let mut left = made(CLUSTER, segment(), two, 128);
    switch(&mut left, 127 * 8192, 8, 24);
    left[1 << 20..].copy_from_slice(&made(CLUSTER, segment().next(), two, 256)[1 << 20..]);
    assert_eq!(PageCheck::new(CLUSTER, segment(), two).whole(&left), Ok(()));
}

#[test]
fn a_timeline_begins_with_its_parents_pages_and_never_goes_back() {
    let on = |timelines: [u32; 4]| {
        let mut bytes = good(4);
        for (page, timeline) in bytes.chunks_mut(8192).zip(timelines) {
            page[4..8].copy_from_slice(&timeline.to_le_bytes());
        }
        verdict(&bytes)
    };
    assert_eq!(on([1, 1, 2, 3]), Ok(()));
    assert_eq!(on([1, 1, 1, 1]), Ok(()), "its own first record may stand on the parent's last page");
    assert_eq!(on([3, 3, 3, 4]), Err(Fault::OtherTimeline { offset: 3 * 8192, timeline: 4 }));
    assert_eq!(on([2, 1, 3, 3]), Err(Fault::OtherTimeline { offset: 8192, timeline: 1 }));
    assert_eq!(on([0, 1, 3, 3]), Err(Fault::OtherTimeline { offset: 0, timeline: 0 }));
}

#[test]
fn a_growing_segment_is_judged_as_soon_as_a_header_is_there() {
    let mut bytes = good(4);
    bytes[2 * 8192 + 8] ^= 1;
    let mut check = PageCheck::new(CLUSTER, segment(), size());
    for length in [0, 1, LONG_HEADER - 1, LONG_HEADER, 8191, 8192, 8192 + SHORT_HEADER, 2 * 8192 + 23] {
        assert_eq!(check.advance(&bytes[..length]), Ok(()), "{length}");
    }
    assert_eq!(check.advance(&bytes[..2 * 8192 + 24]), Err(Fault::OtherPosition { offset: 2 * 8192 }));
}

#[test]
fn each_fault_is_a_refusal_that_names_the_file() {
    for fault in [
        Fault::NotWal,
        Fault::OtherCluster(ClusterId(1)),
        Fault::OtherSize(size()),
        Fault::Length(7),
        Fault::OtherPosition { offset: 8192 },
        Fault::OtherTimeline { offset: 0, timeline: 9 },
        Fault::NotEmpty { offset: 0 },
    ] {
        let failure = refusal(fault, "000000030000000100000001", CLUSTER);
        assert_eq!(failure.exit, obyra_evidence::Exit::Refused);
        assert_eq!(failure.what.fields()["file"], "000000030000000100000001");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), cuts in 0..4_usize) {
        let mut check = PageCheck::new(CLUSTER, segment(), size());
        for cut in 1..=cuts + 1 {
            if check.advance(&bytes[..bytes.len() * cut / (cuts + 1)]).is_err() {
                break;
            }
        }
        let _ = check.whole(&bytes);
        let _ = SegmentHeader::read(&bytes);
    }

    #[test]
    fn no_bytes_behind_a_good_header_make_it_panic(
        at in 0..(1_usize << 20), junk in proptest::collection::vec(any::<u8>(), 1..64), block in any::<u32>()
    ) {
        let mut bytes = good(128);
        let end = (at + junk.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&junk[..end - at]);
        let _ = verdict(&bytes);
        let mut odd = good(128);
        odd[36..40].copy_from_slice(&block.to_le_bytes());
        prop_assert!(verdict(&odd).is_ok() == (block == 8192));
    }
}
