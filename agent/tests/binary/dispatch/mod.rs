//! The dispatcher with real agents behind it, and sham ones that treat.

mod bed;
mod brake;
mod life;
mod routing;
