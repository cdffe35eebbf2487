use proptest::prelude::*;

use super::*;

const CLUSTER: ClusterId = ClusterId(7000);
const MIB: u64 = 1 << 20;

fn size() -> WalSegmentSize {
    WalSegmentSize::new(MIB).unwrap()
}

fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName { timeline: TimelineId(timeline), number }
}

fn full(timeline: u32, number: u64) -> WalObject {
    WalObject::File(WalFileName::Segment(segment(timeline, number)))
}

fn part(timeline: u32, number: u64, from: u32, to: u32) -> WalObject {
    WalObject::Part(Part { segment: segment(timeline, number), from, to })
}

fn history_file(timeline: u32) -> WalObject {
    WalObject::File(WalFileName::History(TimelineId(timeline)))
}

fn index(objects: &[WalObject]) -> Index {
    let infos: Vec<ObjectInfo> = objects
        .iter()
        .enumerate()
        .map(|(nth, object)| ObjectInfo {
            name: object.object_name(CLUSTER, size()),
            bytes: 100,
            modified: Timestamp::from_second(1_700_000_000 + nth as i64).unwrap(),
        })
        .collect();
    Index::of(CLUSTER, size(), &infos)
}

fn history(timeline: u32, content: &str) -> TimelineHistory {
    TimelineHistory::parse(TimelineId(timeline), content).unwrap()
}

fn hole(timeline: u32, from: u64, to: u64) -> Hole {
    Hole { timeline: TimelineId(timeline), from: Lsn(from), to: Lsn(to) }
}

#[test]
fn stretches_holes_and_the_end_of_a_timeline() {
    let index = index(&[full(1, 3), full(1, 4), full(1, 7), part(1, 8, 0, 4096), part(1, 8, 4096, 5000)]);
    let of = &index.timelines()[&TimelineId(1)];
    let ranges: Vec<_> = of.stretches.iter().map(|s| (s.from.0, s.to.0)).collect();
    assert_eq!(ranges, [(3 * MIB, 5 * MIB), (7 * MIB, 8 * MIB + 5000)]);
    assert_eq!(
        of.stretches[1].newest.duration_since(of.stretches[1].oldest),
        jiff::SignedDuration::from_secs(2)
    );
    assert_eq!(of.stored, 500);
    assert_eq!(index.holes(TimelineId(1)), [hole(1, 5 * MIB, 7 * MIB)]);
    assert_eq!(index.end(TimelineId(1)), Some(Lsn(8 * MIB + 5000)));
    assert_eq!(index.unfinished(TimelineId(1)), Some(segment(1, 8)));
    assert_eq!(index.parts_of(segment(1, 8)).len(), 2);
    assert_eq!(index.end(TimelineId(2)), None);
    assert!(index.holes(TimelineId(2)).is_empty());
}

#[test]
fn parts_of_a_complete_segment_count_for_nothing() {
    let index = index(&[full(1, 3), part(1, 3, 0, 4096), part(1, 4, 0, u32::try_from(MIB).unwrap())]);
    let of = &index.timelines()[&TimelineId(1)];
    assert_eq!(of.needless, [Part { segment: segment(1, 3), from: 0, to: 4096 }]);
    assert_eq!(of.parts.len(), 1);
    assert_eq!(index.end(TimelineId(1)), Some(Lsn(5 * MIB)), "parts that are all of a segment are all of it");
    assert_eq!(index.unfinished(TimelineId(1)), Some(segment(1, 4)), "and it can be made whole yet");
    assert_eq!(super::tests::index(&[full(1, 3)]).unfinished(TimelineId(1)), None);
}

#[test]
fn a_chain_follows_the_history_from_timeline_to_timeline() {
    // Timeline 2 branched off in the middle of segment 5, timeline 3 at the boundary after segment 7.
    let two = history(2, "1\t0/580000\tx\n");
    let three = history(3, "1\t0/580000\tx\n2\t0/800000\tx\n");
    let objects = [
        full(1, 3),
        full(1, 4),
        part(1, 5, 0, 0x9_0000),
        full(2, 5),
        full(2, 6),
        full(2, 7),
        full(3, 8),
        part(3, 9, 0, 0x100),
        history_file(2),
        history_file(3),
    ];
    let known = index(&objects).with_history(two).with_history(three);
    let chain = |from: u64, to: u64, timeline| known.chain(Lsn(from), Lsn(to), TimelineId(timeline));
    assert!(chain(0x30_0028, 0x90_0100, 3).is_complete());
    assert_eq!(chain(0x30_0028, 0x90_0101, 3).holes, [hole(3, 0x90_0100, 0x90_0101)]);
    assert!(chain(0x30_0028, 0x59_0000, 1).is_complete(), "the parent's own last WAL, on its own line");
    assert_eq!(chain(0x20_0000, 0x60_0000, 2).holes, [hole(1, 0x20_0000, 0x30_0000)]);
    assert!(chain(0x58_0000, 0x58_0000, 2).is_complete(), "nothing is needed, nothing is missing");
    assert_eq!(known.newest_timeline(), Some(TimelineId(3)));

    // Without the child's copy of the segment in which it branched off, recovery would read the parent's.
    let objects: Vec<WalObject> = objects.into_iter().filter(|object| *object != full(2, 5)).collect();
    let without = index(&objects).with_history(history(2, "1\t0/580000\tx\n"));
    assert_eq!(
        without.chain(Lsn(0x30_0028), Lsn(0x60_0000), TimelineId(2)).holes,
        [hole(2, 0x50_0000, 0x60_0000)]
    );
    let lost = without.chain(Lsn(0x30_0028), Lsn(0x80_0000), TimelineId(3));
    assert_eq!(lost.history, Some(TimelineId(3)));
    assert!(!lost.is_complete());
}

#[test]
fn a_timeline_that_was_left_at_once_holds_nothing() {
    let history = history(3, "1\t0/580000\tx\n2\t0/580010\tx\n");
    let lines = lineage(&history, size());
    let lines: Vec<_> = lines.iter().map(|(timeline, range)| (timeline.0, range.start.0)).collect();
    assert_eq!(lines, [(1, 0), (3, 0x50_0000)]);
}

#[test]
fn strangers_are_passed_over() {
    let infos =
        ["clusters/7000/wal/x", "clusters/7001/wal/00000001/000000010000000000000003", "keys/0/first.age"]
            .map(|name| ObjectInfo { name: name.to_owned(), bytes: 1, modified: Timestamp::UNIX_EPOCH });
    let index = Index::of(CLUSTER, size(), &infos);
    assert!(index.timelines().is_empty());
    assert_eq!(index.newest_timeline(), None);
    assert!(!index.chain(Lsn(0), Lsn(1), TimelineId(1)).is_complete());
}

#[test]
fn the_fewest_parts_cover_a_segment() {
    let made = |ranges: &[(u32, u32)]| -> Vec<Part> {
        ranges.iter().map(|(from, to)| Part { segment: segment(1, 3), from: *from, to: *to }).collect()
    };
    let chosen = |ranges: &[(u32, u32)]| -> Vec<(u32, u32)> {
        cover(&made(ranges)).iter().map(|part| (part.from, part.to)).collect()
    };
    assert_eq!(chosen(&[]), []);
    assert_eq!(chosen(&[(5, 9)]), [], "without its beginning it is nothing");
    assert_eq!(chosen(&[(0, 4), (4, 6), (6, 7)]), [(0, 4), (4, 6), (6, 7)]);
    assert_eq!(chosen(&[(0, 4), (4, 6), (0, 6), (6, 7), (8, 9)]), [(0, 6), (6, 7)]);
    assert_eq!(chosen(&[(0, 5), (3, 8), (4, 6)]), [(0, 5), (3, 8)]);
}

/// WAL in units of an eighth of a segment, over 6 segments.
fn any_objects() -> impl Strategy<Value = Vec<WalObject>> {
    let unit = u32::try_from(MIB / 8).unwrap();
    let one = prop_oneof![
        (0..6_u64).prop_map(|number| full(1, number)),
        (0..6_u64, 0..8_u32, 1..9_u32).prop_map(move |(number, from, length)| {
            part(1, number, from * unit, (from + length).min(8) * unit)
        }),
    ];
    proptest::collection::btree_set(one, 0..14).prop_map(|set| set.into_iter().collect())
}

fn held(objects: &[WalObject]) -> Vec<bool> {
    let mut held = vec![false; 48];
    for object in objects {
        let (number, from, to) = match object {
            WalObject::File(WalFileName::Segment(segment)) => (segment.number, 0, MIB),
            WalObject::Part(part) => (part.segment.number, part.from.into(), part.to.into()),
            WalObject::File(_) => continue,
        };
        let unit = |offset: u64| usize::try_from((number * MIB + offset) * 8 / MIB).unwrap();
        held[unit(from)..unit(to)].fill(true);
    }
    held
}

proptest! {
    #[test]
    fn a_chain_misses_exactly_what_no_object_holds(
        objects in any_objects(), from in 0..48_u64, length in 0..48_u64
    ) {
        let to = (from + length).min(48);
        let index = index(&objects);
        let held = held(&objects);
        let chain = index.chain(Lsn(from * MIB / 8), Lsn(to * MIB / 8), TimelineId(1));
        let mut missing = [false; 48];
        let mut last = Lsn(0);
        for hole in &chain.holes {
            prop_assert!(hole.from < hole.to && hole.from >= last, "in order and not empty");
            last = hole.to;
            for unit in hole.from.0 * 8 / MIB..hole.to.0 * 8 / MIB {
                missing[usize::try_from(unit).unwrap()] = true;
            }
        }
        for unit in 0..48 {
            let wanted = (from..to).contains(&(unit as u64));
            prop_assert_eq!(missing[unit], wanted && !held[unit], "unit {}", unit);
        }
    }

    #[test]
    fn holes_lie_between_what_is_held(objects in any_objects()) {
        let index = index(&objects);
        let held = held(&objects);
        let first = held.iter().position(|unit| *unit);
        let end = held.iter().rposition(|unit| *unit).map(|last| last as u64 + 1);
        prop_assert_eq!(index.end(TimelineId(1)), end.map(|end| Lsn(end * MIB / 8)));
        let between = first.zip(end).map_or(0, |(first, end)| {
            held[first..usize::try_from(end).unwrap()].iter().filter(|unit| !**unit).count()
        });
        let holes: u64 = index.holes(TimelineId(1)).iter().map(|hole| hole.to.bytes_since(hole.from)).sum();
        prop_assert_eq!(holes, between as u64 * MIB / 8);
    }

    #[test]
    fn a_cover_reaches_as_far_as_the_parts_do(
        ranges in proptest::collection::vec((0..40_u32, 1..12_u32), 0..12)
    ) {
        let parts: Vec<Part> = ranges
            .iter()
            .map(|(from, length)| Part { segment: segment(1, 3), from: *from, to: from + length })
            .collect();
        let mut held = [false; 64];
        for part in &parts {
            held[part.from as usize..part.to as usize].fill(true);
        }
        let reach = held.iter().position(|unit| !unit).unwrap();
        let chosen = cover(&parts);
        prop_assert_eq!(chosen.last().map_or(0, |part| part.to as usize), reach);
        for pair in chosen.windows(2) {
            prop_assert!(pair[1].from <= pair[0].to && pair[1].to > pair[0].to);
        }
        prop_assert!(chosen.len() <= parts.len());
    }
}
