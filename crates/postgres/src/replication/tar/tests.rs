use proptest::prelude::*;

use super::*;

/// What a reader gets, with the data of each entry put together again.
type Read = Vec<(TarEntry, Vec<u8>)>;

fn read(pieces: impl IntoIterator<Item = Bytes>) -> Result<Read> {
    let mut archive = TarEntries::new();
    let mut read = Read::new();
    for piece in pieces {
        archive.feed(piece);
        while let Some(event) = archive.next()? {
            match event {
                TarEvent::Entry(entry) => read.push((entry, Vec::new())),
                TarEvent::Data(data) => {
                    assert!(!data.is_empty());
                    read.last_mut().unwrap().1.extend_from_slice(&data);
                }
            }
        }
    }
    archive.finish()?;
    Ok(read)
}

fn read_whole(archive: &[u8]) -> Result<Read> {
    read([Bytes::copy_from_slice(archive)])
}

/// A header as another program writes it.
fn header(path: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_path(path).unwrap();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    header
}

fn file(path: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = header(path, tar::EntryType::Regular, data.len() as u64).as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    bytes
}

/// A header with some of its bytes replaced, and the checksum set right again.
fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut header = header("base/1/1259", tar::EntryType::Regular, 0);
    header.as_mut_bytes()[at..at + bytes.len()].copy_from_slice(bytes);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn entries_of_every_kind() {
    let mut link = header("pg_tblspc/16384", tar::EntryType::Symlink, 0);
    link.set_link_name("/srv/fast disk").unwrap();
    link.set_cksum();
    let mut archive = file("backup_label", b"START WAL LOCATION");
    archive.extend_from_slice(header("./pg_wal/archive_status/", tar::EntryType::Directory, 0).as_bytes());
    archive.extend_from_slice(link.as_bytes());
    archive.extend_from_slice(&file("global/empty", b""));
    for ends in [0, BLOCK_BYTES, 2 * BLOCK_BYTES, 20 * BLOCK_BYTES] {
        let mut archive = archive.clone();
        archive.resize(archive.len() + ends, 0);
        let read = read_whole(&archive).unwrap();
        let paths: Vec<_> = read.iter().map(|(entry, _)| entry.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["backup_label", "pg_wal/archive_status", "pg_tblspc/16384", "global/empty"]);
        assert_eq!(read[0].1, b"START WAL LOCATION");
        assert_eq!((read[0].0.size, read[0].0.mode, read[0].0.mtime), (18, 0o600, 1_700_000_000));
        assert_eq!(read[1].0.kind, TarKind::Directory);
        assert_eq!(read[2].0.kind, TarKind::Symlink("/srv/fast disk".into()));
        assert_eq!(read[3], (TarEntry { path: "global/empty".into(), size: 0, ..read[0].0.clone() }, vec![]));
    }
    assert!(read_whole(&[]).unwrap().is_empty());
}

#[test]
fn long_names_and_large_sizes() {
    let path = format!("{}/{}", "d".repeat(120), "f".repeat(90));
    assert_eq!(read_whole(&file(&path, b"x")).unwrap()[0].0.path, Path::new(&path));

    // 10 GiB, as PostgreSQL writes what octal digits cannot hold.
    let mut size = vec![0x80];
    size.extend_from_slice(&[0; 3]);
    size.extend_from_slice(&(10_u64 << 30).to_be_bytes());
    let mut archive = TarEntries::new();
    archive.feed(Bytes::from(changed(124, &size)));
    let Some(TarEvent::Entry(entry)) = archive.next().unwrap() else { panic!("no entry") };
    assert_eq!(entry.size, 10 << 30);
    assert_eq!(number(b"00000000000 "), Some(0));
    assert_eq!(number(b"77777777777\0"), Some((8 << 30) - 1));
    assert_eq!(number(b"   644 \0"), Some(0o644));
    for bad in [&b""[..], b"        ", b"0000008\0", b"-1\0", b"+1\0", b"1 1\0", b"\xff\xff\xff\xff"] {
        assert_eq!(number(bad), None, "{bad:?}");
    }
    assert_eq!(number(&[0x80, 0x80, 0, 0, 0, 0, 0, 0, 0]), None, "more than a signed number holds");
    assert_eq!(number(&[0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None, "more than 64 bits");
}

#[test]
fn a_time_that_cannot_be_told_is_zero() {
    assert_eq!(read_whole(&changed(136, &[0xFF; 12])).unwrap()[0].0.mtime, 0);
}

#[test]
fn paths_that_lead_out_are_refused() {
    for hostile in ["../etc/passwd", "base/../../x", "/etc/passwd", "..", ".", "./", ""] {
        let mut name = [0; 100];
        name[..hostile.len()].copy_from_slice(hostile.as_bytes());
        let failure = read_whole(&changed(0, &name)).unwrap_err();
        assert_eq!(failure.what.code(), text::replication::ARCHIVE_PATH, "{hostile}");
        assert_eq!(failure.exit, obyra_evidence::Exit::Refused);
    }
    // A zero ends a name, so that nothing can hide behind it; other odd bytes are a name's own.
    assert_eq!(read_whole(&changed(0, b"a\0b")).unwrap()[0].0.path, Path::new("a"));
    let odd = read_whole(&changed(0, b"a\xff\n\\b\0")).unwrap().remove(0).0.path;
    assert_eq!(odd.into_os_string().into_vec(), b"a\xff\n\\b");
}

#[test]
fn what_is_malformed_names_its_offset() {
    let whole = file("base/1/1259", &[7; 700]);
    let after = |bytes: Vec<u8>| [whole.clone(), bytes].concat();
    let mut wrong_sum = whole[..BLOCK_BYTES].to_vec();
    wrong_sum[3] ^= 1;
    let behind_the_end = [vec![0; BLOCK_BYTES], whole.clone()].concat();
    for (archive, offset) in [
        (after(wrong_sum), 1536),
        (after(changed(257, b"zzzzz")), 1536),
        (after(changed(156, b"1")), 1536),
        (after(changed(156, b"L")), 1536),
        (after(changed(156, b"2")), 1536),
        (after(changed(124, b"xxxxxxxxxxxx")), 1536),
        (after(changed(100, b"xxxxxxxx")), 1536),
        (after(behind_the_end), 2048),
        (header("d", tar::EntryType::Directory, 5).as_bytes().to_vec(), 0),
    ] {
        let failure = read_whole(&archive).unwrap_err();
        assert_eq!(failure.what.code(), text::replication::ARCHIVE_MALFORMED);
        assert_eq!(failure.what.fields()["offset"], offset.to_string(), "{failure}");
    }
    for cut in [1, 511, 513, 1212, 1213, 1535] {
        let failure = read_whole(&whole[..cut]).unwrap_err();
        assert_eq!(failure.what.code(), text::replication::ARCHIVE_TRUNCATED);
        assert_eq!(failure.what.fields()["offset"], cut.to_string());
    }
}

/// An archive of random files, as another program writes it.
fn archives() -> impl Strategy<Value = Vec<u8>> {
    let entry = ("[a-z0-9_]{1,8}(/[a-z0-9_]{1,40}){0,4}", prop::collection::vec(any::<u8>(), 0..1500));
    (prop::collection::vec(entry, 0..5), any::<bool>()).prop_map(|(entries, ends)| {
        let mut archive: Vec<u8> = entries.iter().flat_map(|(path, data)| file(path, data)).collect();
        if ends {
            archive.resize(archive.len() + 2 * BLOCK_BYTES, 0);
        }
        archive
    })
}

proptest! {
    #[test]
    fn entries_do_not_depend_on_how_the_bytes_are_split(
        archive in archives(),
        lengths in prop::collection::vec(1_usize..700, 1..12),
    ) {
        let whole = Bytes::from(archive);
        let mut rest = whole.clone();
        let mut pieces = Vec::new();
        for length in lengths.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            pieces.push(rest.split_to(rest.len().min(*length)));
        }
        let expected = read([whole.clone()]).unwrap();
        prop_assert_eq!(&read(pieces).unwrap(), &expected);

        // The reader of another crate finds the same.
        let mut other = tar::Archive::new(&whole[..]);
        let mut others = Vec::new();
        for entry in other.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut data = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
            others.push((entry.path().unwrap().into_owned(), data));
        }
        let ours: Vec<_> = expected.into_iter().map(|(entry, data)| (entry.path, data)).collect();
        prop_assert_eq!(ours, others);
    }

    #[test]
    fn damaged_archives_never_panic(
        archive in archives(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        right_sums in any::<bool>(),
    ) {
        let mut archive = archive;
        for (at, byte) in damages {
            if !archive.is_empty() {
                let at = at.index(archive.len());
                archive[at] = byte;
            }
        }
        if right_sums {
            for block in archive.chunks_exact_mut(BLOCK_BYTES) {
                let sum = checksum(block);
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if let Ok(read) = read_whole(&archive) {
            for (entry, data) in read {
                prop_assert_eq!(entry.size, data.len() as u64);
                prop_assert!(entry.path.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = read_whole(&bytes);
    }
}
