//! JSON texts as bytes: well-formedness, and finding a value by pointer, without building a tree.
