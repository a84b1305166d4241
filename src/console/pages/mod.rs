//! The pages, one file each.

pub mod account;
pub mod audit;
pub mod billing;
pub mod clusters;
pub mod keys;
pub mod operator;
pub mod rotate;
pub mod sign_in;
pub mod usage;

mod key_dialogs;
mod snippets;
