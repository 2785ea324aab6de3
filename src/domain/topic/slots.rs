//! A persistent array from identifier to item: a radix tree of 32-way nodes over leaves of eight.
//!
//! Identifiers are drawn from a counter, so they are dense; a lookup is four pointer steps at a
//! million items and compares nothing. Items lie in the leaves themselves: with as many as there
//! may be, an allocation and a pointer for each would be a third of what they take. A clone shares
//! every node; a change copies the nodes on its way that a clone still holds, which is why leaves
//! are narrow. Empty nodes are dropped.

use std::sync::Arc;

const BITS: u32 = 5;
const FANOUT: usize = 1 << BITS;
const LEAF_BITS: u32 = 3;
const LEAF_ITEMS: usize = 1 << LEAF_BITS;

/// From identifier to item.
#[derive(Debug, Clone)]
pub(super) struct Slots<T> {
    root: Option<Node<T>>,
    /// Levels below the root.
    height: u32,
    len: usize,
}

#[derive(Debug)]
enum Node<T> {
    Branch(Arc<[Option<Self>; FANOUT]>),
    Leaf(Arc<[Option<T>; LEAF_ITEMS]>),
}

/// Shares the node, whatever the items are.
impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Branch(below) => Self::Branch(Arc::clone(below)),
            Self::Leaf(items) => Self::Leaf(Arc::clone(items)),
        }
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { root: None, height: 0, len: 0 }
    }
}

/// The place of an identifier in its leaf.
fn slot_in_leaf(id: u64) -> usize {
    id as usize % LEAF_ITEMS
}

/// The place of an identifier in a branch that stands `level` levels above the leaves, at least one.
fn slot(id: u64, level: u32) -> usize {
    (id >> (LEAF_BITS + BITS * level.saturating_sub(1))) as usize % FANOUT
}

/// Levels above the leaves that a tree needs to hold an identifier.
fn height_for(id: u64) -> u32 {
    (u64::BITS - (id >> LEAF_BITS).leading_zeros()).div_ceil(BITS)
}

impl<T: Clone> Slots<T> {
    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The item of an identifier.
    pub(super) fn get(&self, id: u64) -> Option<&T> {
        if height_for(id) > self.height {
            return None;
        }
        let mut node = self.root.as_ref()?;
        let mut level = self.height;
        loop {
            match node {
                Node::Branch(below) => node = below.get(slot(id, level))?.as_ref()?,
                Node::Leaf(items) => return items.get(slot_in_leaf(id))?.as_ref(),
            }
            level = level.saturating_sub(1);
        }
    }

    /// The item of an identifier, to be changed; copies what a clone still holds.
    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        if height_for(id) > self.height {
            return None;
        }
        let mut node = self.root.as_mut()?;
        let mut level = self.height;
        loop {
            match node {
                Node::Branch(below) => {
                    node = Arc::make_mut(below).get_mut(slot(id, level))?.as_mut()?;
                }
                Node::Leaf(items) => {
                    return Arc::make_mut(items).get_mut(slot_in_leaf(id))?.as_mut();
                }
            }
            level = level.saturating_sub(1);
        }
    }

    /// Puts an item under an identifier; gives back the one that was there.
    pub(super) fn insert(&mut self, id: u64, item: T) -> Option<T> {
        let height = height_for(id);
        if self.root.is_none() {
            self.height = height;
        }
        while self.height < height {
            let mut below = [const { None }; FANOUT];
            if let Some(first) = below.first_mut() {
                *first = self.root.take();
            }
            self.root = Some(Node::Branch(Arc::new(below)));
            self.height += 1;
        }
        let before = insert(&mut self.root, self.height, id, item);
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes the item of an identifier out.
    pub(super) fn remove(&mut self, id: u64) -> Option<T> {
        // Nothing is copied for an identifier that is not there.
        self.get(id)?;
        let item = remove(&mut self.root, self.height, id)?;
        self.len -= 1;
        Some(item)
    }
}

fn insert<T: Clone>(node: &mut Option<Node<T>>, level: u32, id: u64, item: T) -> Option<T> {
    let node = node.get_or_insert_with(|| match level {
        0 => Node::Leaf(Arc::new([const { None }; LEAF_ITEMS])),
        _ => Node::Branch(Arc::new([const { None }; FANOUT])),
    });
    match node {
        Node::Branch(below) => {
            let below = Arc::make_mut(below).get_mut(slot(id, level))?;
            insert(below, level.saturating_sub(1), id, item)
        }
        Node::Leaf(items) => Arc::make_mut(items).get_mut(slot_in_leaf(id))?.replace(item),
    }
}

fn remove<T: Clone>(node: &mut Option<Node<T>>, level: u32, id: u64) -> Option<T> {
    let (item, empty) = match node.as_mut()? {
        Node::Branch(below) => {
            let below = Arc::make_mut(below);
            let item = remove(below.get_mut(slot(id, level))?, level.saturating_sub(1), id)?;
            (item, below.iter().all(Option::is_none))
        }
        Node::Leaf(items) => {
            let items = Arc::make_mut(items);
            let item = items.get_mut(slot_in_leaf(id))?.take()?;
            (item, items.iter().all(Option::is_none))
        }
    };
    if empty {
        *node = None;
    }
    Some(item)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heights() {
        for (id, height) in
            [(0, 0), (7, 0), (8, 1), (255, 1), (256, 2), (8191, 2), (8192, 3), (u64::MAX, 13)]
        {
            assert_eq!(height_for(id), height, "{id}");
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        let mut slots = Slots::default();
        for id in [0, u64::MAX, 1 << 63, 7] {
            assert_eq!(slots.insert(id, id), None);
        }
        for id in [0, u64::MAX, 1 << 63, 7] {
            assert_eq!(slots.get(id), Some(&id));
            assert_eq!(slots.remove(id), Some(id));
            assert_eq!(slots.get(id), None);
        }
        assert_eq!(slots.len(), 0);
        assert!(slots.root.is_none(), "empty nodes are dropped");
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_clones_stand_still(
            steps in prop::collection::vec((0u64..3000, any::<Option<u8>>()), 1..200),
        ) {
            let mut slots = Slots::default();
            let mut model = BTreeMap::new();
            let mut clones = Vec::new();
            for (id, value) in steps {
                match value {
                    Some(value) if value % 2 == 0 => {
                        prop_assert_eq!(slots.insert(id, value),
                            model.insert(id, value));
                    }
                    Some(value) => {
                        if let Some(item) = slots.get_mut(id) {
                            *item = value;
                            model.insert(id, value);
                        }
                    }
                    None => {
                        prop_assert_eq!(slots.remove(id), model.remove(&id));
                    }
                }
                clones.push((slots.clone(), model.clone()));
            }
            for (slots, model) in clones {
                prop_assert_eq!(slots.len(), model.len());
                for id in 0..3000 {
                    prop_assert_eq!(slots.get(id), model.get(&id));
                }
            }
        }
    }
}
