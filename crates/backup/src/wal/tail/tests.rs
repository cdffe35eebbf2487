use std::collections::BTreeMap;
use std::sync::LazyLock;

use obyra_postgres::wal::TimelineId;
use proptest::prelude::*;

use super::super::pages::tests::made;
use super::*;

const CLUSTER: ClusterId = ClusterId(7000);
const MIB: usize = 1 << 20;

fn size() -> WalSegmentSize {
    WalSegmentSize::new(MIB as u64).unwrap()
}

fn segment(number: u64) -> SegmentName {
    SegmentName { timeline: TimelineId(1), number }
}

fn wal(number: u64) -> Vec<u8> {
    made(CLUSTER, segment(number), size(), 128)
}

fn tail(number: u64) -> Tail {
    Tail::new(CLUSTER, size(), segment(number), Vec::new(), Bytes::new())
}

fn lsn(number: u64, offset: usize) -> Lsn {
    segment(number).start(size()) + offset as u64
}

fn part(number: u64, from: u32, to: u32) -> Part {
    Part { segment: segment(number), from, to }
}

#[test]
fn only_what_is_stored_is_durable_and_in_order() {
    let mut tail = tail(5);
    let stream = [wal(5), wal(6), wal(7)].concat();
    assert_eq!(tail.receive(lsn(5, 0), &stream[..MIB - 1]).unwrap(), []);
    assert_eq!((tail.received(), tail.durable()), (lsn(5, MIB - 1), lsn(5, 0)));
    let complete = tail.receive(lsn(5, MIB - 1), &stream[MIB - 1..2 * MIB + 100]).unwrap();
    assert_eq!(complete.iter().map(|c| c.segment.number).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(complete[0].bytes, wal(5));
    assert_eq!(complete[1].bytes, wal(6));
    assert_eq!(tail.complete_pending(), 2);

    assert_eq!(tail.segment_stored(segment(6)), []);
    assert_eq!(tail.durable(), lsn(5, 0), "6 is stored, and 5 is not");
    let (sent, bytes) = tail.next_part().unwrap();
    assert_eq!((sent, &bytes[..]), (part(7, 0, 100), &wal(7)[..100]));
    assert!(tail.next_part().is_none(), "one at a time");
    assert_eq!(tail.part_stored(sent), []);
    assert_eq!(tail.durable(), lsn(5, 0));
    tail.segment_stored(segment(5));
    assert_eq!((tail.durable(), tail.complete_pending()), (lsn(7, 100), 0));
    assert!(!tail.wants_part());
}

#[test]
fn a_part_counts_until_its_segment_is_stored_whole() {
    let mut tail = tail(5);
    tail.receive(lsn(5, 0), &wal(5)[..8192]).unwrap();
    let (first, _) = tail.next_part().unwrap();
    tail.part_stored(first);
    tail.receive(lsn(5, 8192), &wal(5)[8192..30_000]).unwrap();
    let (second, bytes) = tail.next_part().unwrap();
    assert_eq!((second, bytes.len()), (part(5, 8192, 30_000), 30_000 - 8192));
    tail.receive(lsn(5, 30_000), &wal(5)[30_000..]).unwrap();
    assert_eq!(tail.durable(), lsn(5, 8192));
    assert_eq!(tail.segment_stored(segment(5)), [first], "the second is still under way");
    assert_eq!(tail.durable(), lsn(6, 0));
    assert_eq!(tail.part_stored(second), [second], "and of no use when it arrives");
}

#[test]
fn what_the_archive_has_is_compared_and_counts_as_durable_at_once() {
    let known = Bytes::from(wal(5)[..30_000].to_vec());
    let resumed = || {
        Tail::new(CLUSTER, size(), segment(5), vec![part(5, 0, 8192), part(5, 8192, 30_000)], known.clone())
    };
    let mut tail = resumed();
    assert_eq!((tail.received(), tail.durable()), (lsn(5, 0), lsn(5, 30_000)));
    tail.receive(lsn(5, 0), &wal(5)[..20_000]).unwrap();
    assert!(!tail.wants_part());
    tail.receive(lsn(5, 20_000), &wal(5)[20_000..40_000]).unwrap();
    assert_eq!(tail.next_part().unwrap().0, part(5, 30_000, 40_000));
    tail.receive(lsn(5, 40_000), &wal(5)[40_000..]).unwrap();
    assert_eq!(tail.segment_stored(segment(5)), [part(5, 0, 8192), part(5, 8192, 30_000)]);

    let mut other = wal(5);
    other[29_999] ^= 1;
    let failure = resumed().receive(lsn(5, 0), &other).unwrap_err();
    assert_eq!(failure.what.code(), text::backup::WAL_TWO_WRITERS);
    other[29_999] ^= 1;
    other[30_000] ^= 1;
    assert!(resumed().receive(lsn(5, 0), &other).is_ok());
}

#[test]
fn foreign_wal_is_refused_as_it_comes_and_so_is_a_jump() {
    let foreign = made(ClusterId(1), segment(5), size(), 128);
    let failure = tail(5).receive(lsn(5, 0), &foreign[..100]).unwrap_err();
    assert_eq!(failure.what.code(), text::backup::WAL_OTHER_CLUSTER);
    let failure = tail(5).receive(lsn(5, 1), &wal(5)[1..]).unwrap_err();
    assert_eq!(failure.what.code(), text::backup::WAL_OUT_OF_PLACE);
}

#[test]
fn small_parts_become_one() {
    let sixteen = WalSegmentSize::DEFAULT;
    let mib = 1 << 20;
    // Alone in its window: nothing to merge with, however far it goes.
    assert_eq!(merged_from(&[], 0, 100, sixteen), 0);
    assert_eq!(merged_from(&[part(5, 0, mib)], mib, 5 * mib, sixteen), mib);
    // Leaving its window takes the window's parts along.
    let two = [part(5, 0, mib), part(5, mib, mib + 100)];
    assert_eq!(merged_from(&two, mib + 100, mib + 200, sixteen), mib + 100);
    assert_eq!(merged_from(&two, mib + 100, 2 * mib, sixteen), mib);
    assert_eq!(merged_from(&two, mib + 100, 9 * mib + 7, sixteen), mib);
    // So does the sixteenth part of it.
    let many: Vec<Part> = (0..15).map(|nth| part(5, nth * 10, nth * 10 + 10)).collect();
    assert_eq!(merged_from(&many[..14], 140, 150, sixteen), 140);
    assert_eq!(merged_from(&many, 150, 160, sixteen), 0);
}

/// What may happen to a receiver, in any order.
#[derive(Clone, Debug)]
enum Step {
    Receive(usize),
    Part,
    PartArrives,
    SegmentArrives(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..400_000_usize).prop_map(Step::Receive),
        3 => Just(Step::Part),
        3 => Just(Step::PartArrives),
        2 => (0..3_usize).prop_map(Step::SegmentArrives),
    ]
}

/// A store, and what is on its way there.
#[derive(Default)]
struct World {
    objects: BTreeMap<(u64, u32, u32), Bytes>,
    parts: Vec<(Part, Bytes)>,
    segments: Vec<Complete>,
}

impl World {
    fn delete(&mut self, parts: Vec<Part>) {
        for part in parts {
            self.objects.remove(&(part.segment.number, part.from, part.to)).expect("it was stored");
        }
    }

    fn put(&mut self, number: u64, from: u32, to: u32, bytes: Bytes) {
        let at = usize::try_from(lsn(number, from as usize).bytes_since(lsn(5, 0))).unwrap();
        assert_eq!(bytes, STREAM[at..at + (to - from) as usize]);
        self.objects.insert((number, from, to), bytes);
    }

    /// Where the WAL in the store ends, from the first segment on.
    fn end(&self) -> Lsn {
        let mut number = 5;
        loop {
            let of = self.objects.range((number, 0, 0)..=(number, u32::MAX, u32::MAX));
            let parts: Vec<Part> = of.map(|((number, from, to), _)| part(*number, *from, *to)).collect();
            let reach = cover(&parts).last().map_or(0, |part| part.to as usize);
            if reach < MIB {
                return lsn(number, reach);
            }
            number += 1;
        }
    }
}

static STREAM: LazyLock<Vec<u8>> = LazyLock::new(|| (5..22).flat_map(wal).collect());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn what_is_called_durable_is_in_the_store_whatever_happens(
        steps in proptest::collection::vec(any_step(), 1..80)
    ) {
        let (mut tail, mut world) = (tail(5), World::default());
        let mut reported = Lsn(0);
        for step in steps {
            match step {
                Step::Receive(bytes) => {
                    let at = usize::try_from(tail.received().bytes_since(lsn(5, 0))).unwrap();
                    let data = &STREAM[at..(at + bytes).min(STREAM.len())];
                    world.segments.extend(tail.receive(tail.received(), data).unwrap());
                }
                Step::Part => world.parts.extend(tail.next_part()),
                Step::PartArrives => {
                    if let Some((part, bytes)) = (!world.parts.is_empty()).then(|| world.parts.remove(0)) {
                        world.put(part.segment.number, part.from, part.to, bytes);
                        let needless = tail.part_stored(part);
                        world.delete(needless);
                    }
                }
                Step::SegmentArrives(nth) => {
                    if nth < world.segments.len() {
                        let Complete { segment, bytes } = world.segments.remove(nth);
                        world.put(segment.number, 0, u32::try_from(MIB).unwrap(), bytes);
                        let needless = tail.segment_stored(segment);
                        world.delete(needless);
                    }
                }
            }
            prop_assert!(tail.durable() <= world.end(), "{} said, {} stored", tail.durable(), world.end());
            prop_assert!(tail.durable() >= reported, "it never goes back");
            reported = tail.durable();
        }
    }
}
