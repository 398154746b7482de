//! Why policies allow a connection or not, and what would change that.
//!
//! The compiler turns policies into rules of this node; this module reads the same policies
//! for one question at a time, with the same parsers, and keeps what the compiler throws away:
//! which rule came close, and what it lacked. Pure, like the compiler. A test holds the two
//! together.
//!
//! Both ends are judged wherever they are. The tables of a node judge its own pods only:
//! [`Explanation::allowed_here`] is what they should say.

mod answer;
mod case;
mod labels;
mod party;
mod ports;
mod question;
mod rules;
mod text;
mod tiers;
mod view;

pub use answer::{
    Advice, Explanation, Ground, Judgement, Labelled, Miss, MissCause, PortAdvice, PortMismatch,
    Relabel, RulePart,
};
pub use case::explain;
pub use labels::LabelChange;
pub use question::{End, Question};
pub use text::{protocol_name, protocol_number};
pub use view::{near_miss, part};
