//! A watched file's change is seen however it is made, once, and nothing else is.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic in its helpers too

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use renewd::daemon::watch::{Timing, Watcher};
use tempfile::TempDir;

const NEVER: Duration = Duration::from_hours(24);
const DEADLINE: Duration = Duration::from_secs(20);

/// A watch by inotify alone.
const EVENTS_ONLY: Timing = Timing {
    quiet: Duration::from_millis(20),
    longest: Duration::from_millis(500),
    poll: NEVER,
};
/// A watch with the poll, as in production, but faster.
const POLLING: Timing = Timing {
    poll: Duration::from_millis(20),
    ..EVENTS_ONLY
};

fn file(directory: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

fn rename_over(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

async fn changed(watcher: &mut Watcher) -> Vec<PathBuf> {
    tokio::time::timeout(DEADLINE, watcher.changed())
        .await
        .expect("a change is reported")
}

#[tokio::test]
async fn a_write_in_place_is_seen_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, "config.toml", "one");
    let mut watcher = Watcher::start(vec![path.clone()], EVENTS_ONLY);
    for content in ["two", "three"] {
        fs::write(&path, content).unwrap();
        assert_eq!(changed(&mut watcher).await, [path.as_path()]);
    }
}

#[tokio::test]
async fn an_atomic_rename_is_seen_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, "config.toml", "one");
    let mut watcher = Watcher::start(vec![path.clone()], EVENTS_ONLY);
    for content in ["two", "three", "four"] {
        rename_over(&path, content);
        assert_eq!(changed(&mut watcher).await, [path.as_path()]);
    }
}

#[tokio::test]
async fn a_swapped_data_symlink_is_seen_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let publish = |version: &str| {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("config.toml"), version).unwrap();
        symlink(version, root.join("..data_new")).unwrap();
        fs::rename(root.join("..data_new"), root.join("..data")).unwrap();
    };
    publish("..one");
    let path = root.join("config.toml");
    symlink("..data/config.toml", &path).unwrap();
    let mut watcher = Watcher::start(vec![path.clone()], EVENTS_ONLY);
    for version in ["..two", "..three"] {
        publish(version);
        assert_eq!(changed(&mut watcher).await, [path.as_path()]);
    }
}

#[tokio::test]
async fn the_target_of_a_symlink_into_another_directory_is_watched_too() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = file(&there, "target", "one");
    let path = here.path().join("config.toml");
    symlink(&target, &path).unwrap();
    let mut watcher = Watcher::start(vec![path.clone()], EVENTS_ONLY);
    rename_over(&target, "two");
    assert_eq!(changed(&mut watcher).await, [path.as_path()]);
}

#[tokio::test]
async fn deleting_and_putting_back_are_two_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, "config.toml", "one");
    let mut watcher = Watcher::start(vec![path.clone()], EVENTS_ONLY);
    fs::remove_file(&path).unwrap();
    assert_eq!(changed(&mut watcher).await, [path.as_path()]);
    rename_over(&path, "one");
    assert_eq!(changed(&mut watcher).await, [path.as_path()]);
}

#[tokio::test]
async fn a_file_that_was_not_there_yet_is_seen_when_it_appears() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("streams.toml");
    let mut watcher = Watcher::start(vec![path.clone()], EVENTS_ONLY);
    rename_over(&path, "one");
    assert_eq!(changed(&mut watcher).await, [path.as_path()]);
}

#[tokio::test]
async fn a_replaced_directory_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("etc");
    let path = inner.join("config.toml");
    fs::create_dir(&inner).unwrap();
    fs::write(&path, "one").unwrap();
    let mut watcher = Watcher::start(vec![path.clone()], POLLING);

    let successor = directory.path().join("etc.new");
    fs::create_dir(&successor).unwrap();
    fs::write(successor.join("config.toml"), "two").unwrap();
    fs::rename(&inner, directory.path().join("etc.old")).unwrap();
    fs::rename(&successor, &inner).unwrap();
    let reported = changed(&mut watcher).await;
    assert_eq!(reported, [path.as_path()]);

    rename_over(&path, "three");
    assert_eq!(changed(&mut watcher).await, [path]);
}

#[tokio::test]
async fn equal_content_is_no_change() {
    let directory = tempfile::tempdir().unwrap();
    let same = file(&directory, "same", "one");
    let other = file(&directory, "other", "one");
    let mut watcher = Watcher::start(vec![same.clone(), other.clone()], EVENTS_ONLY);
    rename_over(&same, "one");
    rename_over(&other, "two");
    assert_eq!(changed(&mut watcher).await, [other.as_path()]);
    file(&directory, "unwatched", "new");
    rename_over(&same, "one");
    rename_over(&other, "three");
    assert_eq!(changed(&mut watcher).await, [other]);
}

#[tokio::test]
async fn a_writer_that_never_rests_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, "config.toml", "one");
    let restless = Timing {
        quiet: NEVER,
        longest: Duration::from_millis(20),
        poll: NEVER,
    };
    let mut watcher = Watcher::start(vec![path.clone()], restless);
    rename_over(&path, "two");
    assert_eq!(changed(&mut watcher).await, [path.as_path()]);
}

#[tokio::test]
async fn another_set_of_files_is_watched_at_once_and_the_old_one_no_longer() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let old = file(&here, "old", "one");
    let new = file(&there, "new", "one");
    let mut watcher = Watcher::start(vec![old.clone()], EVENTS_ONLY);
    watcher.set_files(vec![new.clone()]).await;
    rename_over(&old, "two");
    rename_over(&new, "two");
    assert_eq!(changed(&mut watcher).await, [new]);
}
