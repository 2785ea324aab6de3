//! What both stores promise, checked over both.

use std::io::ErrorKind;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::in_memory::MemoryStore;
use super::on_sled::SledStore;
use super::store::{
    BATCH_KEYS_MAX, Batch, BatchError, KEY_BYTES_MAX, Store, StoreError, Tree, VALUE_BYTES_LIMIT,
};

const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

/// Runs a check over each kind of store; the second argument closes and opens it.
fn on_both(check: impl Fn(Store, &dyn Fn(Store) -> Store)) {
    let memory = MemoryStore::new();
    check(Store::Memory(memory.clone()), &move |store| {
        drop(store);
        Store::Memory(memory.clone())
    });
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("index");
    let open = || {
        // sled gives its lock back a moment after the last handle is gone.
        let opened = (0..2_000).find_map(|_| match SledStore::open(&dir) {
            Err(StoreError::Disk { source, .. }) if source.kind() == ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(2));
                None
            }
            opened => Some(opened),
        });
        Store::Sled(opened.unwrap().unwrap())
    };
    check(open(), &|store| {
        drop(store);
        open()
    });
}

fn batch(tree: Tree, puts: &[(&str, &str)], removals: &[&str]) -> Batch {
    let mut batch = Batch::new(tree);
    for (key, value) in puts {
        batch
            .put(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
            .unwrap();
    }
    for key in removals {
        batch.remove(Bytes::copy_from_slice(key.as_bytes())).unwrap();
    }
    batch
}

fn keys(store: &Store, tree: Tree, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Vec<String> {
    let page = store.scan(tree, range, usize::MAX, usize::MAX).unwrap();
    assert!(page.complete);
    page.items.iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
}

#[test]
fn what_is_applied_is_readable_and_trees_are_apart() {
    on_both(|store, _| {
        store.apply(&batch(Tree::Effects, &[("a", "1"), ("b", "2")], &[])).unwrap();
        store.apply(&batch(Tree::Config, &[("a", "3")], &[])).unwrap();
        assert_eq!(store.get(Tree::Effects, b"a").unwrap().unwrap(), "1");
        assert_eq!(store.get(Tree::Config, b"a").unwrap().unwrap(), "3");
        assert_eq!(store.get(Tree::Sessions, b"a").unwrap(), None);
        assert_eq!(keys(&store, Tree::Sessions, ALL), [""; 0]);
        assert_eq!(keys(&store, Tree::Effects, ALL), ["a", "b"]);
    });
}

#[test]
fn of_two_changes_of_a_key_the_later_counts() {
    on_both(|store, _| {
        store.apply(&batch(Tree::Meta, &[("a", "1"), ("a", "2")], &[])).unwrap();
        assert_eq!(store.get(Tree::Meta, b"a").unwrap().unwrap(), "2");
        store.apply(&batch(Tree::Meta, &[("a", "3")], &["a", "not there"])).unwrap();
        assert_eq!(store.get(Tree::Meta, b"a").unwrap(), None);
    });
}

#[test]
fn ranges_and_pages() {
    on_both(|store, _| {
        let puts = [("a", "xx"), ("b", "xx"), ("c", "xx"), ("d", "xx"), ("e", "xx")];
        store.apply(&batch(Tree::Postings, &puts, &[])).unwrap();
        let in_range = |start, end| keys(&store, Tree::Postings, (start, end));
        assert_eq!(in_range(Bound::Included(&b"b"[..]), Bound::Excluded(&b"d"[..])), ["b", "c"]);
        assert_eq!(in_range(Bound::Excluded(&b"b"[..]), Bound::Included(&b"d"[..])), ["c", "d"]);
        assert_eq!(in_range(Bound::Excluded(&b"d"[..]), Bound::Unbounded), ["e"]);
        assert_eq!(in_range(Bound::Included(&b"d"[..]), Bound::Excluded(&b"b"[..])), [""; 0]);
        assert_eq!(in_range(Bound::Excluded(&b"b"[..]), Bound::Excluded(&b"b"[..])), [""; 0]);

        let page = store.scan(Tree::Postings, ALL, 2, usize::MAX).unwrap();
        assert_eq!((page.items.len(), page.complete), (2, false));
        let page = store.scan(Tree::Postings, ALL, usize::MAX, 4).unwrap();
        assert_eq!((page.items.len(), page.complete), (2, false), "a page ends past its bytes");
        let page = store.scan(Tree::Postings, ALL, 5, usize::MAX).unwrap();
        assert_eq!((page.items.len(), page.complete), (5, true));
        let page = store.scan(Tree::Postings, ALL, 0, 0).unwrap();
        assert_eq!(page.items.len(), 1, "a page of a range that is not empty is not empty");

        let last = |start, end| store.last(Tree::Postings, (start, end)).unwrap();
        assert_eq!(last(Bound::Unbounded, Bound::Unbounded).unwrap().0, "e");
        assert_eq!(last(Bound::Unbounded, Bound::Excluded(&b"c"[..])).unwrap().0, "b");
        assert_eq!(last(Bound::Unbounded, Bound::Excluded(&b"a"[..])), None);
    });
}

#[test]
fn the_last_of_an_empty_tree_is_not_another_trees() {
    on_both(|store, _| {
        store.apply(&batch(Tree::Segments, &[("z", "1")], &[])).unwrap();
        store.apply(&batch(Tree::Postings, &[("a", "1")], &[])).unwrap();
        assert_eq!(store.last(Tree::Snapshots, ALL).unwrap(), None);
        assert_eq!(store.last(Tree::Meta, ALL).unwrap(), None);
    });
}

#[test]
fn limits_of_a_batch() {
    let mut full = Batch::new(Tree::Effects);
    for n in 0..BATCH_KEYS_MAX {
        full.put(Bytes::from(n.to_string()), Bytes::new()).unwrap();
    }
    assert!(full.is_full());
    assert_eq!(full.put(Bytes::new(), Bytes::new()), Err(BatchError::Full));
    assert_eq!(full.remove(Bytes::new()), Err(BatchError::Full));
    assert_eq!(full.changes().len(), BATCH_KEYS_MAX);

    let mut batch = Batch::new(Tree::Effects);
    let (value, key) =
        (Bytes::from(vec![0; VALUE_BYTES_LIMIT]), Bytes::from(vec![0; KEY_BYTES_MAX + 1]));
    let too_large = Err(BatchError::ValueTooLarge { bytes: VALUE_BYTES_LIMIT });
    assert_eq!(batch.put(Bytes::new(), value.clone()), too_large);
    assert_eq!(batch.remove(key), Err(BatchError::KeyTooLarge { bytes: KEY_BYTES_MAX + 1 }));
    assert!(batch.is_empty());
    batch.put(Bytes::from(vec![0; KEY_BYTES_MAX]), value.slice(1..)).unwrap();
    on_both(|store, _| {
        store.apply(&full).unwrap();
        store.apply(&batch).unwrap();
        assert_eq!(keys(&store, Tree::Effects, ALL).len(), BATCH_KEYS_MAX + 1);
    });
}

#[test]
fn what_was_flushed_is_there_after_opening_again() {
    on_both(|store, reopen| {
        let value = "v".repeat(VALUE_BYTES_LIMIT - 1);
        for n in 0..40 {
            store.apply(&batch(Tree::Effects, &[(&format!("{n:03}"), &value)], &[])).unwrap();
        }
        store.apply(&batch(Tree::Meta, &[("m", "1")], &[])).unwrap();
        store.flush().unwrap();
        let store = reopen(store);
        assert_eq!(keys(&store, Tree::Effects, ALL).len(), 40);
        assert_eq!(store.get(Tree::Effects, b"039").unwrap().unwrap(), value);
        assert_eq!(store.get(Tree::Meta, b"m").unwrap().unwrap(), "1");
    });
}

#[test]
fn a_crash_of_the_store_in_memory_loses_what_was_not_flushed() {
    let memory = MemoryStore::new();
    let store = Store::Memory(memory.clone());
    store.apply(&batch(Tree::Config, &[("a", "1"), ("b", "1")], &[])).unwrap();
    store.flush().unwrap();
    store.apply(&batch(Tree::Config, &[("a", "2"), ("c", "2")], &["b"])).unwrap();
    store.apply(&batch(Tree::Config, &[("a", "3")], &["c"])).unwrap();
    memory.crash();
    assert_eq!(keys(&store, Tree::Config, ALL), ["a", "b"]);
    assert_eq!(store.get(Tree::Config, b"a").unwrap().unwrap(), "1");
}

#[test]
fn sled_writes_no_file_that_it_does_not_make_durable() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("index");
    let store = Store::Sled(SledStore::open(&dir).unwrap());
    let value = "v".repeat(VALUE_BYTES_LIMIT - 1);
    for n in 0..400 {
        store.apply(&batch(Tree::Effects, &[(&format!("{n:03}"), &value)], &[])).unwrap();
    }
    store.flush().unwrap();
    let blobs = std::fs::read_dir(dir.join("blobs")).unwrap().count();
    assert_eq!(blobs, 0, "values of this size must stay inside of sled's one durable file");
    assert!(dir.join("db").is_file());
}

#[derive(Debug, Clone)]
enum Change {
    Put(Tree, u8, u16),
    Remove(Tree, u8),
    Flush,
    Reopen,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let tree = || prop::sample::select(Tree::ALL.to_vec());
    let change = prop_oneof![
        6 => (tree(), any::<u8>(), any::<u16>()).prop_map(|(t, k, v)| Change::Put(t, k, v)),
        3 => (tree(), any::<u8>()).prop_map(|(t, k)| Change::Remove(t, k)),
        1 => Just(Change::Flush),
        1 => Just(Change::Reopen),
    ];
    prop::collection::vec(change, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_do_the_same(changes in changes()) {
        let results = std::cell::RefCell::new(Vec::new());
        on_both(|mut store, reopen| {
            for change in &changes {
                match change {
                    Change::Put(tree, key, value) => {
                        let mut batch = Batch::new(*tree);
                        let value = vec![*key; usize::from(*value)];
                        batch.put(Bytes::from(vec![*key]), Bytes::from(value)).unwrap();
                        store.apply(&batch).unwrap();
                    }
                    Change::Remove(tree, key) => {
                        let mut batch = Batch::new(*tree);
                        batch.remove(Bytes::from(vec![*key])).unwrap();
                        store.apply(&batch).unwrap();
                    }
                    Change::Flush => store.flush().unwrap(),
                    Change::Reopen => {
                        store.flush().unwrap();
                        store = reopen(store);
                    }
                }
            }
            let trees = Tree::ALL.map(|tree| store.scan(tree, ALL, usize::MAX, usize::MAX).unwrap());
            results.borrow_mut().push(trees);
        });
        let results = results.into_inner();
        prop_assert_eq!(results.len(), 2);
        prop_assert_eq!(&results[0], &results[1]);
    }
}
