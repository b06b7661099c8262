//! The dispatcher with real agents behind it, and fake ones that treat.

mod flood;
mod life;
mod limit;
mod routing;
mod setup;
