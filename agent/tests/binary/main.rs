//! The program as its users meet it: started as a process, asked over HTTP.

mod agent;
mod check;
mod command_line;
mod configuration;
mod dispatch;
mod exposition;
mod files;
mod flood;
mod life;
mod names;
mod pages;
mod scrape;
mod state;
mod webhook;
