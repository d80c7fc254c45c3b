// SPDX-License-Identifier: Apache-2.0
//! What the owner of a store declares: its trees, and which filling of the directory it is.
//!
//! Owns      the definitions of a store's trees, the map from tree id to place in the schema, the install id.
//! Holds     tree ids are unique, and a definition handed to a call is one of the store's own.
//! Never     knows what a key or a value means; an entry's weight is the owner's function.

/// How the entries of a tree arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TreeKind {
    /// Fixed 16-byte keys that only grow. A view is a true snapshot of such a tree.
    Append,
    /// Any key in any order. A view sees the newest committed value of each key.
    Ordered,
}

/// One named tree of a store.
#[derive(Clone, Copy, Debug)]
pub struct TreeDef {
    /// Stored in every node; never reused for another tree.
    pub id: u8,
    /// For messages and tools.
    pub name: &'static str,
    pub kind: TreeKind,
    /// Pages of a full leaf.
    pub leaf_pages: u16,
    /// What one entry counts in [`View::weight`](crate::View::weight). A function of key and value alone.
    pub weight: fn(&[u8], &[u8]) -> u64,
}

/// Every tree of a store. The order is the order of the tree directory; append to it, never reorder.
pub type Schema = &'static [TreeDef];

/// Which filling of the data directory this is: drawn at random by whoever creates a store or installs
/// a snapshot. Tree file and log must name the same one, else the log's entries belong to another state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct InstallId(pub u64);

/// A key of an append tree: two big-endian numbers, so that byte order is revision order.
pub type AppendKey = [u8; 16];

/// Most trees a store can have: the tree directory is part of one page.
pub const TREES_MAX: usize = 32;

const ABSENT: u8 = u8::MAX;
const _: () = assert!(TREES_MAX < ABSENT as usize, "a place in the schema fits a byte");

/// The schema with its ids resolved.
#[derive(Debug)]
pub(crate) struct Trees {
    schema: Schema,
    place_of: [u8; 256],
}

impl Trees {
    /// # Panics
    /// If two trees share an id, there are too many, or a leaf has no pages: the schema is a constant
    /// of the program.
    pub(crate) fn new(schema: Schema) -> Self {
        assert!(schema.len() <= TREES_MAX, "{} trees are more than {TREES_MAX}", schema.len());
        let mut place_of = [ABSENT; 256];
        for (place, tree) in schema.iter().enumerate() {
            assert!(tree.leaf_pages > 0, "tree {} has leaves of no pages", tree.name);
            let slot = &mut place_of[usize::from(tree.id)];
            assert!(*slot == ABSENT, "tree id {} is used twice", tree.id);
            *slot = place as u8;
        }
        Self { schema, place_of }
    }

    pub(crate) fn schema(&self) -> Schema {
        self.schema
    }

    pub(crate) fn len(&self) -> usize {
        self.schema.len()
    }

    /// The place of `tree` in the schema.
    ///
    /// # Panics
    /// If the store has no such tree, or one of another kind: the caller mixed up two schemas.
    pub(crate) fn place(&self, tree: &TreeDef) -> usize {
        let place = self.place_of[usize::from(tree.id)];
        assert!(place != ABSENT, "tree {} ({}) is not in this store", tree.name, tree.id);
        let place = usize::from(place);
        assert!(self.schema[place].kind == tree.kind, "tree {} is declared with another kind", tree.name);
        place
    }

    /// The place of `tree`, which must be of `kind`.
    pub(crate) fn place_of_kind(&self, tree: &TreeDef, kind: TreeKind) -> usize {
        assert!(tree.kind == kind, "tree {} is {:?}, not {kind:?}", tree.name, tree.kind);
        self.place(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(_: &[u8], _: &[u8]) -> u64 {
        1
    }

    const A: TreeDef = TreeDef { id: 3, name: "a", kind: TreeKind::Append, leaf_pages: 8, weight: one };
    const B: TreeDef = TreeDef { id: 9, name: "b", kind: TreeKind::Ordered, leaf_pages: 1, weight: one };

    #[test]
    fn a_definition_is_found_by_its_id() {
        let trees = Trees::new(const { &[A, B] });
        assert_eq!((trees.place(&A), trees.place(&B)), (0, 1));
    }

    #[test]
    #[should_panic(expected = "not in this store")]
    fn a_tree_of_another_schema_is_refused() {
        Trees::new(const { &[A] }).place(&B);
    }

    #[test]
    #[should_panic(expected = "used twice")]
    fn an_id_used_twice_is_refused() {
        Trees::new(const { &[A, A] });
    }
}
