//! An image with busybox in it, made in the guest and given to the runtime.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::guest::Guest;

pub(super) const NAME: &str = "nodemedic.test/busybox:1";

/// What a sandbox runs; containers bring their own command.
const PAUSE: [&str; 3] = ["/bin/busybox", "sleep", "1000000"];

pub(super) fn import(guest: &Guest, socket: &str, folder: &str) -> Result<()> {
    let layer = guest.sh(&format!(
        "set -e; mkdir -p {folder}/image {folder}/tree/bin; cd {folder}\n\
         cp /bin/busybox tree/bin/busybox\n\
         for applet in dirname nslookup sh sleep; do ln -s busybox tree/bin/$applet; done\n\
         busybox tar -C tree -cf image/layer.tar .\n\
         busybox sha256sum image/layer.tar"
    ))?;
    let digest = layer.split_whitespace().next().context("a digest")?;
    let write = |name: &str, value: serde_json::Value| {
        let path = format!("{folder}/image/{name}");
        fs::write(&path, value.to_string()).with_context(|| format!("write {path}"))
    };
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": PAUSE, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    write("config.json", config)?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    write("manifest.json", manifest)?;
    guest
        .sh(&format!(
            "cd {folder} && busybox tar -C image -cf image.tar . && \
             ctr --address {socket} --namespace k8s.io images import --snapshotter native image.tar"
        ))
        .map(drop)
}
