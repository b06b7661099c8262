//! The dispatcher with real agents behind it, and fake ones that treat.

mod bed;
mod life;
mod limit;
mod routing;
