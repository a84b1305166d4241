//! The primary of a group of Redis servers is lost, and with it changes that were answered: what was deleted stays deleted.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tollgate::demo::SampleService;

use crate::harness::PATIENCE;
use crate::harness::group::Group;
use crate::harness::office::Office;
use crate::harness::process::{Node, Process, run_with};
use crate::harness::raw;
use crate::harness::ring::Ring;
use crate::harness::stage::{FETCH, fill, serve_sample};

const GATEWAYS: usize = 2;
/// To notice, to agree, to promote; then the control plane makes its changes again, and the first delete outwaits old leases.
const FAILOVER: Duration = Duration::from_secs(30);

struct Scene<G> {
    /// The servers.
    group: G,
    office: Office,
    gateways: Vec<SocketAddr>,
    _sample: SampleService,
    _runtime: tokio::runtime::Runtime,
    processes: Vec<(Node, Process)>,
}

impl<G> Scene<G> {
    /// `store` is what every node's `[store]` begins with.
    fn on(group: G, store: &str, replicas: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sample, upstream) = runtime.block_on(serve_sample());
        fill(&sample);
        let store =
            format!("{store}lease = \"2s\"\nreplicas = {replicas}\n[meter]\nflush = \"100ms\"\nslab_dir = \"slab\"\n");
        let keys = "[keys]\nactive_max = 1000\ndaily_max = 1000\n";
        let mut processes =
            vec![serve(&format!("[control]\nlisten = \"127.0.0.1:0\"\nid = \"control-1\"\n{store}{keys}"))];
        let control = processes[0].1.listening("control");
        let gateway = "[gateway]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\ndefault_cluster = \"stage.test\"\n";
        for _ in 0..GATEWAYS {
            processes.push(serve(&format!("{gateway}[health]\nlisten = \"127.0.0.1:0\"\n{store}")));
        }
        let gateways = processes[1..].iter().map(|(_, process)| process.listening("gateway")).collect();
        let office = Office::seed(control, upstream);
        let scene = Self { group, office, gateways, _sample: sample, _runtime: runtime, processes };
        scene.gateways_are_ready();
        scene
    }

    fn gateways_are_ready(&self) {
        for (_, process) in &self.processes[1..] {
            let (health, deadline) = (process.listening("health"), Instant::now() + PATIENCE);
            while raw::call(health, "GET", "/readyz", &[], b"").status != 200 {
                assert!(Instant::now() < deadline, "never ready; the log:\n{}", process.log());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Id and text of a new key, once it could be made.
    fn create(&self) -> (String, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.office.try_create() {
                Ok(key) => return key,
                Err(answer) => assert!(answer.status == 503 && Instant::now() < deadline, "{}", answer.text()),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn statuses(&self, key: &str) -> Vec<u16> {
        let status = |at: &SocketAddr| raw::call(*at, "GET", FETCH, &[("dashvector-auth-token", key)], b"").status;
        self.gateways.iter().map(status).collect()
    }

    /// Calls with a key that lives and with one that is gone, until there is another primary and the first passes everywhere.
    fn until_served(&self, is_over: impl Fn(&G) -> bool, live: &str, gone: &str) -> Duration {
        let began = Instant::now();
        loop {
            let (seen, denied) = (self.statuses(live), self.statuses(gone));
            assert!(seen.iter().all(|status| [200, 503].contains(status)), "of a live key: {seen:?}");
            assert!(denied.iter().all(|status| [401, 503].contains(status)), "of a deleted key: {denied:?}");
            if is_over(&self.group) && seen.iter().all(|status| *status == 200) {
                return began.elapsed();
            }
            assert!(began.elapsed() < FAILOVER, "still {seen:?}; {}", self.processes[0].1.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn serve(config: &str) -> (Node, Process) {
    let node = Node::new(config);
    let process = Process::serve(&node.config());
    (node, process)
}

#[test]
fn a_delete_that_only_the_lost_primary_had_stays_done_also_for_gateways_that_never_saw_it() {
    let group = Group::start();
    let store = group.config();
    let mut scene = Scene::on(group, &store, 0);
    let ((_, live), (id, gone)) = (scene.create(), scene.create());
    assert_eq!((scene.statuses(&live), scene.statuses(&gone)), (vec![200; GATEWAYS], vec![200; GATEWAYS]));
    // The replicas have both keys, and will not hear of the delete.
    std::thread::sleep(Duration::from_millis(200));
    scene.group.cut_replication();
    let (status, receipt) = scene.office.delete(&id, "10s");
    assert_eq!((status, receipt["revoked"].as_str()), (200, Some("everywhere")), "{receipt}");
    let old = scene.group.primary();
    scene.group.kill_primary();
    // A gateway that forgets what it knew must ask the new primary.
    scene.processes.remove(1).1.kill();
    scene.gateways.remove(0);
    let served = scene.until_served(|group| group.primary() != old, &live, &gone);
    println!("served again {served:?} after the primary was killed");
    let store = format!("{}lease = \"2s\"\n[meter]\nslab_dir = \"slab\"\n", scene.group.config());
    let gateway = "[gateway]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\ndefault_cluster = \"stage.test\"\n";
    scene.processes.push(serve(&format!("{gateway}[health]\nlisten = \"127.0.0.1:0\"\n{store}")));
    scene.gateways.push(scene.processes.last().unwrap().1.listening("gateway"));
    scene.gateways_are_ready();
    assert_eq!((scene.statuses(&live), scene.statuses(&gone)), (vec![200; GATEWAYS], vec![401; GATEWAYS]));
    // The first delete on a new primary waits until leases of before are over, once.
    let (id, key) = scene.create();
    assert_eq!(scene.statuses(&key), vec![200; GATEWAYS]);
    let began = Instant::now();
    let (status, receipt) = scene.office.delete(&id, "20s");
    assert_eq!(status, 200, "{receipt}");
    println!("the first delete on the new primary took {:?}", began.elapsed());
    assert_eq!(scene.statuses(&key), vec![401; GATEWAYS]);
}

#[test]
fn a_delete_that_too_few_replicas_have_is_not_answered_as_done() {
    let group = Group::start();
    let store = group.config();
    let scene = Scene::on(group, &store, 1);
    let ((first, _), (second, key)) = (scene.create(), scene.create());
    assert_eq!(scene.statuses(&key), vec![200; GATEWAYS]);
    assert_eq!(scene.office.delete(&first, "10s").0, 200);
    scene.group.cut_replication();
    let (status, receipt) = scene.office.delete(&second, "1s");
    assert_eq!(status, 202, "{receipt}");
    assert_eq!(scene.statuses(&key), vec![401; GATEWAYS], "it is denied all the same");
    // The operator goes on without.
    let config = scene.processes[0].0.config();
    let drop_replica = |more: &[&str]| {
        let output = run_with(&[&["store", "drop-replica", "--config", config.to_str().unwrap()], more].concat(), &[]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(drop_replica(&[]).contains("wait for 0 replicas"));
    std::thread::sleep(Duration::from_millis(1500));
    let ((third, _), (fourth, _)) = (scene.create(), scene.create());
    let (status, receipt) = scene.office.delete(&third, "5s");
    assert_eq!(status, 200, "{receipt}");
    assert!(drop_replica(&["--undo"]).contains("wait for 1 replicas"));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(scene.office.delete(&fourth, "500ms").0, 202);
}

#[test]
fn in_a_cluster_the_store_is_found_wherever_its_slot_is_and_a_delete_outlives_its_server() {
    let ring = Ring::start();
    let store = format!("[store]\nkind = \"redis\"\nurl = \"{}\"\n", ring.url());
    let mut scene = Scene::on(ring, &store, 1);
    let ((_, live), (id, gone)) = (scene.create(), scene.create());
    assert_eq!((scene.statuses(&live), scene.statuses(&gone)), (vec![200; GATEWAYS], vec![200; GATEWAYS]));
    let (status, receipt) = scene.office.delete(&id, "10s");
    assert_eq!((status, receipt["revoked"].as_str()), (200, Some("everywhere")), "{receipt}");
    let old = scene.group.owner();
    scene.group.kill_owner();
    let deadline = Instant::now() + FAILOVER;
    while [0, old].contains(&scene.group.owner()) {
        assert!(Instant::now() < deadline, "no replica took over");
        std::thread::sleep(Duration::from_millis(50));
    }
    // That was the one replica that changes wait for, and nobody follows it: the operator goes on without.
    let config = scene.processes[0].0.config();
    let drop_replica = || run_with(&["store", "drop-replica", "--config", config.to_str().unwrap()], &[]);
    let mut dropped = drop_replica();
    // Not every server knows yet that the cluster is whole again.
    while !dropped.status.success() {
        assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&dropped.stderr));
        std::thread::sleep(Duration::from_millis(200));
        dropped = drop_replica();
    }
    let served = scene.until_served(|_| true, &live, &gone);
    println!("served again {served:?} after the operator went on without a replica");
    let (id, key) = scene.create();
    assert_eq!(scene.statuses(&key), vec![200; GATEWAYS]);
    let (status, receipt) = scene.office.delete(&id, "10s");
    assert_eq!(status, 200, "{receipt}");
    assert_eq!((scene.statuses(&key), scene.statuses(&gone)), (vec![401; GATEWAYS], vec![401; GATEWAYS]));
}

/// The sentinels have made another server the primary, and the old one has not heard of it. The connection over which the control
/// plane looks for another server is made anew; all others lead to the old one.
#[test]
fn what_was_made_is_made_again_on_the_new_primary_also_while_connections_lead_to_the_old_one() {
    let group = Group::start();
    let store = group.config();
    let scene = Scene::on(group, &store, 0);
    let (kept, _) = scene.create();
    std::thread::sleep(Duration::from_millis(200));
    scene.group.cut_replication();
    // Of these no replica hears.
    let (made, _) = scene.create();
    assert_eq!(scene.office.delete(&kept, "10s").0, 200);
    let old = scene.group.fail_over();
    scene.group.end_oldest_client(old);
    std::thread::sleep(Duration::from_secs(1));
    scene.group.end_clients(old);
    scene.group.follow(old);
    for id in [made, kept] {
        let deadline = Instant::now() + FAILOVER;
        loop {
            let (status, answer) = scene.office.delete(&id, "10s");
            if status == 200 {
                break;
            }
            assert!([202, 503].contains(&status) && Instant::now() < deadline, "{status} {answer}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let log = scene.processes[0].1.log();
    assert!(log.contains("another epoch was opened"), "{log}");
}
