//! The scenarios, and the one list of them.

mod adding;
mod agent;
mod alert;
mod bench;
mod capabilities;
mod faulty;
mod harness;
mod ipvs_conn_reuse;
mod ipvs_estimation;
mod lab;
mod locked_down;
mod psi_stall;
mod record;
mod service;
mod soak;
mod treatment;
mod udp_conntrack;
mod who;

use std::process::ExitCode;

use nodemedic_tests::scenario::{
    Faulty, HostTest, OLDEST_AND_NEWEST, Registry, Scenario, Shape, WITH_UNFIXED,
};

#[rustfmt::skip]
const MATRIX: &[Scenario] = &[
    Scenario::new("harness::the_kernel_describes_its_types", harness::the_kernel_describes_its_types),
    Scenario::new("harness::nf_conntrack_comes_and_goes", harness::nf_conntrack_comes_and_goes),
    Scenario::new("harness::two_namespaces_reach_each_other", harness::two_namespaces_reach_each_other),
    Scenario::new("harness::masquerade_loads_what_it_needs", harness::masquerade_loads_what_it_needs),
    Scenario::new("harness::ipvs_counts_its_services", harness::ipvs_counts_its_services),
    Scenario::new("harness::nothing_is_left_of_the_ones_before", harness::nothing_is_left_of_the_ones_before),
    Scenario::new("harness::ip_vs_is_of_the_time_that_the_matrix_says", harness::ip_vs_is_of_the_time_that_the_matrix_says).kernels(WITH_UNFIXED),
    Scenario::new("harness::the_usual_machine_has_one_cpu", harness::the_usual_machine_has_one_cpu),
    Scenario::new("harness::two_cpus_are_two", harness::two_cpus_are_two).shape(Shape::TwoCpus),
    Scenario::new("harness::many_cpus_are_possible", harness::many_cpus_are_possible).shape(Shape::ManyPossibleCpus),
    Scenario::new("harness::a_site_goes_with_its_vanished_clients", harness::a_site_goes_with_its_vanished_clients).kernels(&["6.12"]),
    Scenario::new("udp_conntrack::the_hook_fits_the_kernel", udp_conntrack::the_hook_fits_the_kernel),
    Scenario::new("udp_conntrack::one_shots_are_counted_exactly", udp_conntrack::one_shots_are_counted_exactly).limit(240),
    Scenario::new("udp_conntrack::one_shots_are_counted_exactly_by_kprobes", udp_conntrack::one_shots_are_counted_exactly_by_kprobes).limit(240).kernels(&["newest"]),
    Scenario::new("udp_conntrack::a_flow_is_counted_as_what_it_became", udp_conntrack::a_flow_is_counted_as_what_it_became).limit(180),
    Scenario::new("udp_conntrack::a_deleted_entry_is_counted_as_deleted", udp_conntrack::a_deleted_entry_is_counted_as_deleted),
    Scenario::new("udp_conntrack::a_small_table_fills_is_full_and_recovers", udp_conntrack::a_small_table_fills_is_full_and_recovers).limit(240),
    Scenario::new("udp_conntrack::refused::a_sparse_table_drops_what_a_dense_one_makes_room_for", udp_conntrack::refused::a_sparse_table_drops_what_a_dense_one_makes_room_for).limit(240),
    Scenario::new("udp_conntrack::refused::a_table_of_assured_entries_drops_all_new_ones", udp_conntrack::refused::a_table_of_assured_entries_drops_all_new_ones),
    Scenario::new("udp_conntrack::refused::chains_that_are_too_long_are_treated_with_more_buckets", udp_conntrack::refused::chains_that_are_too_long_are_treated_with_more_buckets).limit(240),
    Scenario::new("udp_conntrack::refused::a_clash_that_is_lost_is_told_from_one_that_is_resolved", udp_conntrack::refused::a_clash_that_is_lost_is_told_from_one_that_is_resolved),
    Scenario::new("udp_conntrack::refused::packets_of_one_socket_that_race_lose_nothing", udp_conntrack::refused::packets_of_one_socket_that_race_lose_nothing).shape(Shape::TwoCpus).limit(240),
    Scenario::new("udp_conntrack::refused::invalid_packets_are_counted_and_harm_nobody", udp_conntrack::refused::invalid_packets_are_counted_and_harm_nobody),
    Scenario::new("udp_conntrack::idle_entries_are_a_waste_until_the_timeout_is_short", udp_conntrack::idle_entries_are_a_waste_until_the_timeout_is_short).limit(240).kernels(OLDEST_AND_NEWEST),
    Scenario::new("udp_conntrack::the_module_comes_goes_and_comes_back", udp_conntrack::the_module_comes_goes_and_comes_back).limit(240),
    Scenario::new("udp_conntrack::without_hooks_the_baseline_stands_in", udp_conntrack::without_hooks_the_baseline_stands_in).kernels(OLDEST_AND_NEWEST),
    Scenario::new("udp_conntrack::the_capabilities_of_the_daemonset_are_enough", udp_conntrack::the_capabilities_of_the_daemonset_are_enough),
    Scenario::new("udp_conntrack::without_sys_admin_a_kprobe_stands_in", udp_conntrack::without_sys_admin_a_kprobe_stands_in).kernels(OLDEST_AND_NEWEST),
    Scenario::new("udp_conntrack::without_bpffs_and_tracefs_nothing_is_missing", udp_conntrack::without_bpffs_and_tracefs_nothing_is_missing).kernels(OLDEST_AND_NEWEST),
    Scenario::new("udp_conntrack::without_btf_the_baseline_stands_in", udp_conntrack::without_btf_the_baseline_stands_in).kernels(OLDEST_AND_NEWEST),
    Scenario::new("udp_conntrack::without_privileges_the_baseline_stands_in", udp_conntrack::without_privileges_the_baseline_stands_in).kernels(OLDEST_AND_NEWEST),
    Scenario::new("locked_down::what_cannot_be_had_is_named_and_the_rest_is_measured", locked_down::what_cannot_be_had_is_named_and_the_rest_is_measured).shape(Shape::LockedDown),
    Scenario::new("locked_down::one_shots_are_counted_exactly", udp_conntrack::one_shots_are_counted_exactly).limit(240).shape(Shape::LockedDown).kernels(&["6.12"]),
    Scenario::new("locked_down::a_rolling_upgrade_delays_as_many_as_the_agent_counts", ipvs_conn_reuse::a_rolling_upgrade_delays_as_many_as_the_agent_counts).limit(300).shape(Shape::LockedDown).kernels(&["6.12"]),
    Scenario::new("capabilities::those_of_the_daemonset_attach_every_probe", capabilities::those_of_the_daemonset_attach_every_probe),
    Scenario::new("udp_conntrack::nothing_stays_attached_when_it_ends", udp_conntrack::nothing_stays_attached_when_it_ends).kernels(OLDEST_AND_NEWEST),
    Scenario::new("psi_stall::an_idle_node_is_healthy", psi_stall::an_idle_node_is_healthy),
    Scenario::new("psi_stall::a_memory_limit_is_named_with_who_waits_for_it", psi_stall::a_memory_limit_is_named_with_who_waits_for_it).limit(240),
    Scenario::new("psi_stall::a_quota_is_told_from_a_busy_cpu", psi_stall::a_quota_is_told_from_a_busy_cpu).limit(240),
    Scenario::new("psi_stall::a_neighbour_that_takes_the_cpu_is_the_culprit", psi_stall::a_neighbour_that_takes_the_cpu_is_the_culprit).limit(240),
    Scenario::new("psi_stall::a_limit_on_a_disk_is_named_with_who_waits_for_it", psi_stall::a_limit_on_a_disk_is_named_with_who_waits_for_it).limit(240),
    Scenario::new("psi_stall::a_dirtier_of_a_slow_disk_is_named_with_who_waits", psi_stall::a_dirtier_of_a_slow_disk_is_named_with_who_waits).limit(240),
    Scenario::new("psi_stall::what_stress_ng_does_is_told_apart", psi_stall::what_stress_ng_does_is_told_apart).limit(300).kernels(&["newest"]),
    Scenario::new("psi_stall::a_file_system_whose_daemon_hangs_is_named", psi_stall::a_file_system_whose_daemon_hangs_is_named).limit(240),
    Scenario::new("psi_stall::an_idle_io_uring_is_a_note", psi_stall::an_idle_io_uring_is_a_note).limit(240),
    Scenario::new("psi_stall::a_short_stall_is_counted", psi_stall::a_short_stall_is_counted).limit(240),
    Scenario::new("psi_stall::the_kernel_calls_when_tasks_wait", psi_stall::the_kernel_calls_when_tasks_wait).limit(240),
    Scenario::new("psi_stall::a_storm_of_cgroups_stops_nothing", psi_stall::a_storm_of_cgroups_stops_nothing).limit(240).kernels(OLDEST_AND_NEWEST),
    Scenario::new("psi_stall::the_last_of_many_cgroups_is_named_although_a_scan_reads_few", psi_stall::cgroups::the_last_of_many_is_named_although_a_scan_reads_few).limit(400).kernels(OLDEST_AND_NEWEST),
    Scenario::new("psi_stall::a_cgroup_below_a_quiet_one_has_not_waited", psi_stall::cgroups::one_below_a_quiet_one_has_not_waited).limit(240),
    Scenario::new("psi_stall::what_is_little_of_a_node_calls_by_its_cgroup", psi_stall::what_is_little_of_a_node_calls_by_its_cgroup).limit(240).shape(Shape::TwoCpus).kernels(OLDEST_AND_NEWEST),
    Scenario::new("psi_stall::waits_for_memory_agree_with_the_kernels_count", psi_stall::probed::waits_for_memory_agree_with_the_kernels_count).limit(240),
    Scenario::new("psi_stall::the_scheduler_is_watched_only_while_tasks_wait", psi_stall::probed::the_scheduler_is_watched_only_while_tasks_wait).limit(240).kernels(OLDEST_AND_NEWEST),
    Scenario::new("psi_stall::waits_for_memory_have_the_cause_that_the_kernel_counts", psi_stall::causes::waits_for_memory_have_the_cause_that_the_kernel_counts).limit(240),
    Scenario::new("psi_stall::a_storm_of_reclaim_is_named_with_who_has_to", psi_stall::causes::a_storm_of_reclaim_is_named_with_who_has_to).limit(240),
    Scenario::new("psi_stall::psi_that_is_off_is_told_with_its_remedy", psi_stall::psi_that_is_off_is_told_with_its_remedy).shape(Shape::WithoutPsi).kernels(&["6.1"]),
    Scenario::new("treatment::entries_fall_to_half_and_the_agents_end_undoes", treatment::entries_fall_to_half_and_the_agents_end_undoes).limit(400),
    Scenario::new("treatment::others_are_respected", treatment::others_are_respected).limit(240).kernels(OLDEST_AND_NEWEST),
    Scenario::new("treatment::another_writer_is_named_and_not_overruled", treatment::another_writer_is_named_and_not_overruled).limit(400).kernels(OLDEST_AND_NEWEST),
    Scenario::new("treatment::a_killed_agent_leaves_nothing_in_force", treatment::a_killed_agent_leaves_nothing_in_force).limit(240).kernels(OLDEST_AND_NEWEST),
    Scenario::new("treatment::a_full_disk_keeps_nothing_in_force", treatment::a_full_disk_keeps_nothing_in_force).limit(300),
    Scenario::new("treatment::other_file_systems_may_be_full_too", treatment::other_file_systems_may_be_full_too).limit(300).shape(Shape::Pods).kernels(&["6.12"]),
    Scenario::new("treatment::what_was_announced_outlasts_a_power_failure", treatment::what_was_announced_outlasts_a_power_failure).limit(400).shape(Shape::Pods).kernels(&["6.12"]),
    Scenario::new("treatment::a_container_that_is_not_privileged_treats", treatment::a_container_that_is_not_privileged_treats),
    Scenario::new("treatment::an_observer_cannot_write", treatment::an_observer_cannot_write),
    Scenario::new("treatment::without_an_agent_it_stays_until_it_is_told_to_end", treatment::without_an_agent_it_stays_until_it_is_told_to_end).limit(240).kernels(OLDEST_AND_NEWEST),
    Scenario::new("ipvs_conn_reuse::every_syn_has_the_outcome_that_its_client_saw", ipvs_conn_reuse::every_syn_has_the_outcome_that_its_client_saw).limit(600).kernels(WITH_UNFIXED),
    Scenario::new("ipvs_conn_reuse::by_kprobes_every_syn_has_the_outcome_that_its_client_saw", ipvs_conn_reuse::by_kprobes_every_syn_has_the_outcome_that_its_client_saw).limit(300).kernels(&["newest"]),
    Scenario::new("ipvs_conn_reuse::every_syn_of_ipv6_has_the_outcome_that_its_client_saw", ipvs_conn_reuse::every_syn_of_ipv6_has_the_outcome_that_its_client_saw).limit(300),
    Scenario::new("ipvs_conn_reuse::a_rolling_upgrade_delays_as_many_as_the_agent_counts", ipvs_conn_reuse::a_rolling_upgrade_delays_as_many_as_the_agent_counts).limit(300).kernels(WITH_UNFIXED),
    Scenario::new("ipvs_conn_reuse::curl_waits_where_the_agent_says", ipvs_conn_reuse::curl_waits_where_the_agent_says).limit(180).kernels(OLDEST_AND_NEWEST),
    Scenario::new("ipvs_conn_reuse::ab_and_the_agent_count_alike", ipvs_conn_reuse::ab_and_the_agent_count_alike).limit(240).kernels(&["5.10", "newest", "5.10-unfixed"]),
    Scenario::new("ipvs_conn_reuse::clean_closes_are_healthy", ipvs_conn_reuse::clean_closes_are_healthy).limit(300).kernels(&["5.10", "6.1", "newest", "5.10-unfixed"]),
    Scenario::new("ipvs_conn_reuse::a_delay_is_over_with_its_remedy", ipvs_conn_reuse::a_delay_is_over_with_its_remedy).limit(180).kernels(WITH_UNFIXED),
    Scenario::new("ipvs_conn_reuse::drained_servers_are_left_by_the_remedy", ipvs_conn_reuse::drained_servers_are_left_by_the_remedy).limit(180).kernels(&["5.10", "newest", "5.10-unfixed"]),
    Scenario::new("ipvs_conn_reuse::a_black_hole_is_closed_by_its_remedy", ipvs_conn_reuse::a_black_hole_is_closed_by_its_remedy).limit(180).kernels(&["5.10", "newest", "5.10-unfixed"]),
    Scenario::new("ipvs_conn_reuse::a_client_that_gives_up_is_counted", ipvs_conn_reuse::a_client_that_gives_up_is_counted).limit(180).kernels(OLDEST_AND_NEWEST),
    Scenario::new("ipvs_conn_reuse::the_packet_hook_is_left_alone_as_kube_proxy_sets_it", ipvs_conn_reuse::the_packet_hook_is_left_alone_as_kube_proxy_sets_it).limit(180).kernels(OLDEST_AND_NEWEST),
    Scenario::new("ipvs_conn_reuse::a_removal_is_noticed_between_two_readings", ipvs_conn_reuse::a_removal_is_noticed_between_two_readings).limit(240).kernels(OLDEST_AND_NEWEST),
    Scenario::new("ipvs_conn_reuse::dead_connections_make_room_and_living_ones_stay", ipvs_conn_reuse::dead_connections_make_room_and_living_ones_stay).limit(240).kernels(WITH_UNFIXED),
    Scenario::new("ipvs_conn_reuse::a_rolling_upgrade_delays_nobody_while_it_is_swept", ipvs_conn_reuse::a_rolling_upgrade_delays_nobody_while_it_is_swept).limit(240).kernels(WITH_UNFIXED),
    Scenario::new("ipvs_conn_reuse::late_packets_bring_the_delay_back_unless_the_entry_was_opened", ipvs_conn_reuse::late_packets_bring_the_delay_back_unless_the_entry_was_opened).limit(180).kernels(&["5.10", "newest", "5.10-unfixed"]),
    Scenario::new("ipvs_conn_reuse::sweeping_keeps_to_its_rate", ipvs_conn_reuse::sweeping_keeps_to_its_rate).limit(180).kernels(&["5.10", "newest", "5.10-unfixed"]),
    Scenario::new("ipvs_conn_reuse::an_unfixed_kernel_is_not_swept", ipvs_conn_reuse::an_unfixed_kernel_is_not_swept).limit(180).kernels(WITH_UNFIXED),
    Scenario::new("ipvs_conn_reuse::two_namespaces_are_told_apart", ipvs_conn_reuse::two_namespaces_are_told_apart).limit(180).kernels(OLDEST_AND_NEWEST),
    Scenario::new("ipvs_conn_reuse::the_module_comes_goes_and_comes_back", ipvs_conn_reuse::the_module_comes_goes_and_comes_back).limit(300),
    Scenario::new("ipvs_conn_reuse::without_hooks_the_baseline_stands_in", ipvs_conn_reuse::without_hooks_the_baseline_stands_in).limit(180).kernels(OLDEST_AND_NEWEST),
    Scenario::new("ipvs_conn_reuse::a_flow_on_a_drained_server_is_told", ipvs_conn_reuse::a_flow_on_a_drained_server_is_told).limit(400),
    Scenario::new("ipvs_conn_reuse::an_idle_flow_on_a_drained_server_is_healthy", ipvs_conn_reuse::an_idle_flow_on_a_drained_server_is_healthy).limit(240),
    Scenario::new("ipvs_conn_reuse::a_flow_on_a_removed_server_is_told_and_ended", ipvs_conn_reuse::a_flow_on_a_removed_server_is_told_and_ended).limit(240),
    Scenario::new("ipvs_conn_reuse::a_flow_of_ipv6_on_a_removed_server_is_told_and_ended", ipvs_conn_reuse::a_flow_of_ipv6_on_a_removed_server_is_told_and_ended).limit(240).kernels(OLDEST_AND_NEWEST),
    Scenario::new("ipvs_conn_reuse::check_tells_of_a_flow_on_a_drained_local_server", ipvs_conn_reuse::check_tells_of_a_flow_on_a_drained_local_server).limit(240),
    Scenario::new("ipvs_conn_reuse::an_idle_flow_on_a_removed_server_is_healthy", ipvs_conn_reuse::an_idle_flow_on_a_removed_server_is_healthy).limit(240),
    Scenario::new("ipvs_conn_reuse::without_hooks_the_list_tells_of_udp_flows", ipvs_conn_reuse::without_hooks_the_list_tells_of_udp_flows).limit(240).kernels(OLDEST_AND_NEWEST),
    Scenario::new("ipvs_estimation::the_hook_fits_the_kernel", ipvs_estimation::the_hook_fits_the_kernel),
    Scenario::new("ipvs_estimation::every_namespace_and_protocol_is_counted", ipvs_estimation::every_namespace_and_protocol_is_counted).limit(180),
    Scenario::new("ipvs_estimation::the_module_comes_goes_and_comes_back", ipvs_estimation::the_module_comes_goes_and_comes_back).limit(300),
    Scenario::new("ipvs_estimation::a_treatment_follows_namespaces_and_reloads", ipvs_estimation::a_treatment_follows_namespaces_and_reloads).limit(400),
    Scenario::new("ipvs_estimation::busy_threads_let_others_go_first_until_that_is_undone", ipvs_estimation::busy_threads_let_others_go_first_until_that_is_undone).limit(180),
    Scenario::new("ipvs_estimation::twenty_thousand_services_take_no_memory", ipvs_estimation::twenty_thousand_services_take_no_memory).limit(900).kernels(&["6.1"]),
    Scenario::new("ipvs_estimation::few_services_are_healthy", ipvs_estimation::few_services_are_healthy).limit(180).shape(Shape::ManyPossibleCpus).kernels(&["5.10", "6.1", "newest"]),
    Scenario::new("ipvs_estimation::a_thousand_services_stall_until_estimation_is_off", ipvs_estimation::a_thousand_services_stall_until_estimation_is_off).limit(300).shape(Shape::ManyPossibleCpus),
    Scenario::new("ipvs_estimation::five_thousand_services_stall_until_estimation_is_off", ipvs_estimation::five_thousand_services_stall_until_estimation_is_off).limit(400).shape(Shape::ManyPossibleCpus).kernels(&["6.1"]),
    Scenario::new("ipvs_estimation::passes_agree_with_the_kernels_tracer", ipvs_estimation::passes_agree_with_the_kernels_tracer).limit(300).shape(Shape::ManyPossibleCpus),
    Scenario::new("ipvs_estimation::passes_agree_with_the_kernels_tracer_by_kprobes", ipvs_estimation::passes_agree_with_the_kernels_tracer_by_kprobes).limit(300).shape(Shape::ManyPossibleCpus).kernels(&["newest"]),
    Scenario::new("ipvs_estimation::packets_alone_wait_and_a_ping_sees_it", ipvs_estimation::packets_alone_wait_and_a_ping_sees_it).limit(600).shape(Shape::ManyPossibleCpus),
    Scenario::new("ipvs_estimation::without_hooks_the_baseline_stands_in", ipvs_estimation::without_hooks_the_baseline_stands_in).limit(300).shape(Shape::ManyPossibleCpus).kernels(OLDEST_AND_NEWEST),
    Scenario::new("soak::a_node_on_which_all_happens_at_once_ends_healthy", soak::a_node_on_which_all_happens_at_once_ends_healthy).limit(900).kernels(&["6.12"]),
    Scenario::new("service::the_unit_lets_the_agent_see_treat_and_recover", service::the_unit_lets_the_agent_see_treat_and_recover).limit(300).shape(Shape::Pods).kernels(&["6.12"]),
    Scenario::new("who::pods_are_named_by_a_real_containerd", who::pods_are_named_by_a_real_containerd).limit(300).shape(Shape::Pods).kernels(&["6.1"]),
    // SCTP cannot be unloaded any more, which takes the cleaning of every scenario behind it a while.
    Scenario::new("ipvs_conn_reuse::other_protocols_are_not_counted", ipvs_conn_reuse::other_protocols_are_not_counted).limit(180).kernels(OLDEST_AND_NEWEST),
    // The last: it takes the CPU controller from the tree of version 2.
    Scenario::new("psi_stall::a_quota_of_version_1_is_named", psi_stall::a_quota_of_version_1_is_named).limit(240).kernels(&["5.10", "6.1", "6.12"]),
];

/// The first of them kills its kernel, so the others prove that the next ones still run.
#[rustfmt::skip]
const FAULTY: &[Faulty] = &[
    Faulty { scenario: Scenario::new("harness::a_dead_kernel_fails", faulty::kernel_panic), fails_with: "Kernel panic" },
    Faulty { scenario: Scenario::new("harness::an_error_fails", faulty::error), fails_with: "an error: on purpose" },
    Faulty { scenario: Scenario::new("harness::a_panic_fails", faulty::panic), fails_with: "it panicked" },
    Faulty { scenario: Scenario::new("harness::no_verdict_fails", faulty::killed), fails_with: "without a verdict" },
    Faulty { scenario: Scenario::new("harness::a_hanging_one_fails", faulty::hang).limit(2), fails_with: "no verdict within 2s" },
];

/// No tests by themselves.
#[rustfmt::skip]
const APART: &[Scenario] = &[
    Scenario::new("lab::udp_conntrack", lab::storm).limit(DAYS),
    Scenario::new("lab::ipvs_conn_reuse", lab::upgrade).limit(DAYS),
    Scenario::new("lab::ipvs_estimation", lab::services).limit(DAYS).shape(Shape::ManyPossibleCpus),
    Scenario::new("alert::entries", alert::entries).limit(600),
    Scenario::new("alert::connections", alert::connections).limit(600),
    Scenario::new("alert::pings", alert::pings).limit(600).shape(Shape::ManyPossibleCpus),
    Scenario::new("alert::reclaim", alert::reclaim).limit(600),
    Scenario::new("record::facts", record::facts),
    Scenario::new("soak::hours", soak::hours).limit(DAYS),
    Scenario::new("bench::hooks", bench::probes_beside_bpftrace).limit(1_800),
    Scenario::new("bench::dns", bench::queries_with_and_without_it).limit(1_200),
    Scenario::new("bench::ipvs_connections", bench::connections_with_and_without_it).limit(3_600),
    Scenario::new("bench::ipvs_passes", bench::passes_beside_bpftrace).limit(1_200),
    Scenario::new("bench::ipvs_services", bench::many_services).limit(3_600),
    Scenario::new("bench::scrape", bench::scrapes).limit(600),
    Scenario::new("bench::footprint", bench::memory_and_cpu).limit(600),
    Scenario::new("bench::scan", bench::scans).limit(3_600),
    Scenario::new("bench::psi_cgroups", bench::many_cgroups).limit(3_600),
    Scenario::new("bench::psi_active_cgroups", bench::active_cgroups).limit(3_600),
    Scenario::new("bench::psi_switches", bench::switches_with_and_without_it).limit(900),
];

/// Longer than anybody looks.
const DAYS: u64 = 30 * 86_400;

#[rustfmt::skip]
const HOST: &[HostTest] = &[
    HostTest { name: "harness::a_kernel_that_is_not_there_is_an_error", run: harness::a_kernel_that_is_not_there_is_an_error },
    HostTest { name: "harness::a_qemu_that_is_not_there_is_a_failure", run: harness::a_qemu_that_is_not_there_is_a_failure },
    HostTest { name: "harness::a_full_disk_is_a_failure", run: harness::a_full_disk_is_a_failure },
    HostTest { name: "adding::an_ailment_takes_its_own_files_and_the_lines_of_the_page", run: adding::an_ailment_takes_its_own_files_and_the_lines_of_the_page },
    HostTest { name: "alert::it_keeps_entries_few", run: alert::it_keeps_entries_few },
    HostTest { name: "alert::it_ends_delays", run: alert::it_ends_delays },
    HostTest { name: "alert::it_lets_packets_pass", run: alert::it_lets_packets_pass },
    HostTest { name: "alert::it_has_memory_ready", run: alert::it_has_memory_ready },
    HostTest { name: "lab::its_pages_are_here_until_it_is_told_to_end", run: lab::its_pages_are_here_until_it_is_told_to_end },
    HostTest { name: "lab::it_shows_ipvs_conn_reuse", run: lab::it_shows_ipvs_conn_reuse },
    HostTest { name: "lab::it_shows_ipvs_estimation", run: lab::it_shows_ipvs_estimation },
];

const REGISTRY: Registry = Registry {
    matrix: MATRIX,
    faulty: FAULTY,
    apart: APART,
    host: HOST,
};

fn main() -> ExitCode {
    nodemedic_tests::main(&REGISTRY)
}
