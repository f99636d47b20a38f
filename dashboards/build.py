#!/usr/bin/env python3
"""Writes the four dashboards in grafana/. They are generated, so that variables, links, units and colours are the same everywhere.

build.py          writes them
build.py --check  fails if what is written is not what this would write
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
RUNBOOK = "https://github.com/daisi/daisi-ws-service/blob/main/dashboards/runbook.md"
BOARDS = {
    "dws-connections": "Connection status",
    "dws-messages": "Message flow",
    "dws-health": "System health",
    "dws-trends": "Performance trends",
}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# In every selector: the fleet, and the pods picked. A pod is a scrape target.
POD = 'job=~"$job",instance=~"$pod"'
JOB = 'job=~"$job"'


def variable(name, label, query, **more):
    return {
        "name": name, "label": label, "type": "query", "datasource": DATASOURCE, "query": query,
        "refresh": 2, "sort": 1, "includeAll": True, "multi": True, "allValue": ".*",
        "current": {"text": "All", "value": "$__all"}, "options": [], "hide": 0, "regex": "", "skipUrlSync": False, **more,
    }


def variables():
    intervals = ["1m", "5m", "15m", "1h"]
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0,
         "includeAll": False, "multi": False, "options": [], "regex": "", "skipUrlSync": False, "current": {}},
        variable("job", "Fleet", "label_values(dws_build_info, job)"),
        variable("pod", "Pod", "label_values(dws_build_info{job=~\"$job\"}, instance)"),
        variable("type", "Session type", "label_values(dws_active_connections, type)"),
        {"name": "interval", "label": "Interval", "type": "interval", "query": ",".join(intervals), "auto": False, "auto_count": 30,
         "auto_min": "10s", "refresh": 2, "hide": 0, "skipUrlSync": False, "current": {"text": "5m", "value": "5m"},
         "options": [{"text": text, "value": text, "selected": text == "5m"} for text in intervals]},
    ]


def annotation(name, expr, colour):
    return {"name": name, "datasource": DATASOURCE, "enable": True, "hide": False, "iconColor": colour, "expr": expr, "type": "tags"}


def thresholds(*steps):
    """Steps are (from, colour); below the first it is green."""
    return {"mode": "absolute", "steps": [{"value": None, "color": "green"}] + [{"value": v, "color": c} for v, c in steps]}


def panel(title, unit, targets, kind="timeseries", width=12, height=8, limits=(), text="", stack=False, low=False):
    defaults = {"unit": unit, "color": {"mode": "palette-classic"}, "thresholds": thresholds(*limits), "mappings": []}
    if low:
        # What is bad when it is low: red below the one limit.
        (limit, _), = limits
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"value": None, "color": "red"}, {"value": limit, "color": "green"}]}
    if kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if stack else 8, "showPoints": "never", "spanNulls": False,
            "stacking": {"mode": "normal" if stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if limits else "off"},
        }
        defaults["min"] = 0
        options = {"legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
                   "tooltip": {"mode": "multi", "sort": "desc"}}
    else:
        defaults["color"] = {"mode": "thresholds"}
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "orientation": "auto",
                   "colorMode": "background", "graphMode": "area", "justifyMode": "auto", "textMode": "auto"}
    return {
        "title": title, "description": text, "type": kind, "datasource": DATASOURCE, "width": width, "height": height,
        "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
        "targets": [{"refId": chr(65 + n), "expr": expr, "legendFormat": legend, "datasource": DATASOURCE, "editorMode": "code",
                     "range": True, "instant": False} for n, (expr, legend) in enumerate(targets)],
    }


def stat(title, unit, expr, limits=(), **more):
    return panel(title, unit, [(expr, "")], kind="stat", width=more.pop("width", 4), height=4, limits=limits, **more)


def row(title):
    return {"title": title, "type": "row", "collapsed": False, "width": 24, "height": 1, "panels": []}


def board(uid, panels, refresh="10s", since="now-1h"):
    x = y = tall = 0
    placed = []
    for number, one in enumerate(panels, 1):
        width, height = one.pop("width"), one.pop("height")
        if x + width > 24:
            x, y, tall = 0, y + tall, 0
        placed.append({"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **one})
        x, tall = x + width, max(tall, height)
    links = [{"title": title, "type": "link", "url": f"/d/{other}", "includeVars": True, "keepTime": True, "targetBlank": False,
              "asDropdown": False, "icon": "dashboard", "tags": [], "tooltip": ""}
             for other, title in BOARDS.items() if other != uid]
    links.append({"title": "Runbook", "type": "link", "url": RUNBOOK, "includeVars": False, "keepTime": False, "targetBlank": True,
                  "asDropdown": False, "icon": "doc", "tags": [], "tooltip": "What each alert means and what to do"})
    return {
        "uid": uid, "title": f"daisi-ws-service: {BOARDS[uid]}", "tags": ["daisi-ws-service"], "timezone": "browser",
        "schemaVersion": 39, "version": 1, "editable": True, "graphTooltip": 1, "refresh": refresh,
        "time": {"from": since, "to": "now"}, "templating": {"list": variables()}, "links": links, "panels": placed,
        "annotations": {"list": [
            annotation("Restarts", f"changes(process_start_time_seconds{{{POD}}}[1m]) > 0", "red"),
            annotation("Drains", f"dws_draining{{{POD}}} == 1", "orange"),
        ]},
    }


def rate(name, by="", where="", window="$interval"):
    selector = f"{POD},{where}" if where else POD
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({name}{{{selector}}}[{window}]))"


def quantiles(name, where="", by="le"):
    selector = f"{POD},{where}" if where else POD
    return [(f"histogram_quantile({q}, sum by ({by}) (rate({name}_bucket{{{selector}}}[$interval])))",
             f"P{int(q * 100)}" + ("" if by == "le" else " {{%s}}" % by.split(", ")[0])) for q in (0.5, 0.95, 0.99)]


TYPE = 'type=~"$type"'


def connections():
    return [
        stat("Connections", "short", f"sum(dws_active_connections{{{POD},{TYPE}}})"),
        stat("Pods that want connections", "short", f"sum(dws_ready{{{POD}}})", [(1, "green")], low=True),
        stat("Fullest pod", "percentunit", f"max(instance:dws_connection_saturation:ratio{{{POD}}})", [(0.8, "orange"), (0.95, "red")]),
        stat("Connects", "cps", rate("dws_connections_total", where=TYPE)),
        stat("Authentications that fail", "percentunit", f"max(job:dws_auth_failures:ratio5m{{{JOB}}}) or vector(0)", [(0.05, "orange"), (0.1, "red")]),
        stat("Pods that drain", "short", f"sum(dws_draining{{{POD}}})", [(1, "orange")]),
        stat("Pods that are full", "short", f"sum(dws_full{{{POD}}})", [(1, "orange")]),
        row("Sockets"),
        panel("Connections by type", "short", [(f"sum by (type) (dws_active_connections{{{POD},{TYPE}}})", "{{type}}")], stack=True),
        panel("Connections by pod", "short", [(f"sum by (instance) (dws_active_connections{{{POD},{TYPE}}})", "{{instance}}")], stack=True),
        panel("Opened and closed", "cps", [(rate("dws_connections_total", "type", TYPE), "opened {{type}}"),
                                            (rate("dws_connections_closed_total", "reason", TYPE), "{{reason}}")]),
        panel("Refused before the upgrade", "cps", [(rate("dws_connections_refused_total", "code", TYPE), "{{code}}")]),
        panel("Time to a session", "s", quantiles("dws_connect_seconds", TYPE, "takeover, le"), limits=[(1, "red")],
              text="From a valid request to the lock and the routes, with a take-over (yes) or without."),
        panel("Lifetime of connections that ended", "s", quantiles("dws_connection_duration_seconds", TYPE)),
        row("Who gets in, and who has the session"),
        panel("Authentications", "cps", [(rate("dws_auth_success_total", "type"), "good {{type}}"),
                                          (rate("dws_auth_failure_total", "reason"), "{{reason}}")]),
        panel("Session conflicts and locks", "cps", [(rate("dws_session_conflicts_total", "type", TYPE), "conflicts {{type}}"),
              (rate("dws_session_lock_attempts_total", "type", TYPE), "attempts {{type}}"), (rate("dws_session_lock_success_total", "type", TYPE), "locks {{type}}")]),
        panel("Lock renewals", "cps", [(rate("dws_session_renewals_total", "outcome"), "{{outcome}}")]),
        panel("Kill orders heard", "cps", [(rate("dws_session_kills_total", "outcome"), "{{outcome}}")]),
        panel("Owners asked to let go", "cps", [(rate("dws_session_evictions_total", "way"), "{{way}}")],
              text="On this pod, on a peer that answered, or over the kill channel, which all pods hear."),
        row("Who moves"),
        panel("Clients asked to move", "cps", [(rate("dws_session_moves_total", "reason, outcome"), "{{reason}} {{outcome}}")],
              text="As their pod drains, or has more sockets than others. Who has not moved in time is overdue, and closed."),
        panel("Sockets over the fleet's average", "percentunit", [(f"max by (instance) (dws_sockets_ratio{{{POD}}})", "{{instance}}")], limits=[(1.2, "orange")],
              text="As each pod reckoned last to even them out. Past 1.2 clients are asked to move, until 1.1. 0: not known, as the fleet changes, a pod does not say "
                   "what it has, or few clients can move."),
    ]


def messages():
    return [
        stat("Events taken", "cps", rate("dws_messages_received_total")),
        stat("Events written", "cps", rate("dws_messages_sent_total", where='type="event"')),
        stat("Delivery, P95", "s", f"max(job:dws_event_delivery_seconds:p95_5m{{{JOB}}})", [(0.05, "orange"), (0.1, "red")]),
        stat("End to end, P95", "s", f"max(job:dws_event_end_to_end_seconds:p95_5m{{{JOB}}})", [(0.1, "orange"), (0.2, "red")]),
        stat("Waiting in the stream", "short", f"max(dws_consumer_pending{{{POD}}})", [(100, "orange"), (1000, "red")]),
        stat("Given up in an hour", "short", f'sum(increase(dws_events_settled_total{{{POD},outcome="given_up"}}[1h]))', [(1, "red")]),
        row("Rates"),
        panel("Events taken, by kind", "cps", [(rate("dws_messages_received_total", "kind"), "{{kind}}")]),
        panel("Frames written, by type", "cps", [(rate("dws_messages_sent_total", "type"), "{{type}}")]),
        panel("Events settled", "cps", [(rate("dws_events_settled_total", "outcome"), "{{outcome}}")]),
        panel("Redelivered, duplicates, nobody's", "cps", [(rate("dws_events_redelivered_total"), "delivered again"),
              (rate("dws_events_duplicate_total"), "recognised as duplicates"), (rate("dws_events_forgotten_total"), "forgotten before they were settled"), (rate("dws_events_unclaimed_total", "kind"), "nobody's {{kind}}")]),
        panel("Dropped, and gaps told", "cps", [(rate("dws_websocket_messages_dropped_total", "reason", TYPE), "dropped {{reason}}"),
              (rate("dws_gaps_announced_total", "cause"), "gap {{cause}}")]),
        panel("Bytes of sockets", "Bps", [(rate("dws_websocket_bytes_total", "direction"), "{{direction}}")]),
        row("Latency"),
        panel("Stream to socket (target: P95 100 ms)", "s", quantiles("dws_event_delivery_seconds", by="path, le"), limits=[(0.1, "red")],
              text="From the stream's timestamp until the kernel has taken the frame, once an event and socket."),
        panel("Publisher to socket (target: 200 ms)", "s", quantiles("dws_event_end_to_end_seconds", by="path, le"), limits=[(0.2, "red")],
              text="From the publisher's event_time; it counts the publisher's clock, and whatever it did before publishing."),
        panel("Forwarding (target: 50 ms)", "s", quantiles("dws_grpc_forward_seconds"), limits=[(0.05, "red")]),
        panel("Handed to peers and by peers", "cps", [(rate("dws_grpc_messages_sent_total", "pod"), "to {{pod}}"), (rate("dws_grpc_messages_received_total"), "received")]),
        row("Read again from the stream"),
        panel("Clients that resume", "cps", [(rate("dws_resumes_total", "outcome"), "{{outcome}}")],
              text="What became of the cursors that clients brought. All but resumed load their state anew."),
        panel("Replayed events, and gaps mended", "cps", [(rate("dws_replayed_events_total", "why"), "events {{why}}"),
              (rate("dws_gaps_mended_total", "cause"), "mended {{cause}}"), (rate("dws_gaps_announced_total", "cause"), "announced {{cause}}")]),
        panel("Time of a replay", "s", quantiles("dws_replay_seconds", by="why, le"), limits=[(2, "red")],
              text="From a session's turn until what it missed is read. At resume.timeout_seconds (2) it is unavailable."),
        panel("Replays in flight", "short", [(f"sum by (instance, why) (dws_replays_in_flight{{{POD}}})", "{{why}} {{instance}}")]),
        panel("Age of cursors, and what the stream keeps", "s", [*quantiles("dws_resume_cursor_age_seconds"),
              (f"min(dws_stream_window_seconds{{{POD}}} and dws_stream_full{{{POD}}} == 1) or max(dws_stream_window_seconds{{{POD}}})", "kept by the stream")],
              text="How long clients were away that came back, against the age of the oldest event that the stream has. A cursor above that line is too_old."),
        panel("Events that the stream has", "short", [(f"max(dws_stream_window_events{{{POD}}})", "events"),
              (f"max(dws_stream_full{{{POD}}})", "it lets go of its oldest")]),
        panel("Floor of the frames", "s", [(f"max by (instance) (dws_safe_lag_seconds{{{POD}}})", "{{instance}}")], limits=[(120, "red")],
              text="For how long the place that frames carry (safe) stands still although events are settled. Cursors get so much older than their clients."),
        row("What waits"),
        panel("Consumer lag", "short", [(f"max(dws_consumer_pending{{{POD}}})", "waiting"), (f"max(dws_consumer_ack_pending{{{POD}}})", "unsettled"),
              (f"max(dws_consumer_ack_pending_limit{{{POD}}})", "unsettled at most"), (f"sum(dws_events_in_flight{{{POD}}})", "in flight")]),
        panel("Parked and owed, by peer", "short", [
            (f"sum by (pod) (dws_events_parked{{{POD}}})", "events for {{pod}}"),
            (f"sum by (pod) (dws_gaps_owed{{{POD}}})", "gaps owed to {{pod}}"),
        ]),
        panel("Events left to other pods", "cps", [(rate("dws_events_passed_on_total", "instance"), "{{instance}}"),
              (f"sum by (instance, reason) (dws_stepped_back{{{POD}}})", "stepped back {{instance}} {{reason}}")]),
        panel("Mailboxes", "short", [(f"sum by (type) (dws_websocket_buffer_used_count{{{POD},{TYPE}}})", "waiting {{type}}"),
              (f"sum by (type) (dws_websocket_buffer_capacity{{{POD},{TYPE}}})", "room {{type}}")]),
        panel("Messages of clients", "cps", [(rate("dws_client_messages_total", "outcome"), "{{outcome}}")]),
    ]


def health():
    return [
        stat("Pods scraped", "short", f"sum(up{{{POD}}})", [(1, "green")], low=True),
        stat("Redis", "short", f'min(dws_dependency_up{{{POD},dependency="redis"}})', [(1, "green")], low=True),
        stat("NATS", "short", f'min(dws_dependency_up{{{POD},dependency="nats"}})', [(1, "green")], low=True),
        stat("Server for peers", "short", f'min(dws_dependency_up{{{POD},dependency="grpc"}})', [(1, "green")], low=True),
        stat("Open breakers", "short", f"sum(dws_grpc_circuitbreaker_open{{{POD}}})", [(1, "red")]),
        stat("Alerts that fire", "short", 'count(ALERTS{alertname=~"Dws.*",alertstate="firing"}) or vector(0)', [(1, "red")]),
        row("Dependencies"),
        panel("Dependencies, by pod", "short", [(f"dws_dependency_up{{{POD}}}", "{{dependency}} {{instance}}")]),
        panel("Redis, P95 by command", "s", [(f"histogram_quantile(0.95, sum by (command, le) (rate(dws_redis_command_seconds_bucket{{{POD}}}[$interval])))", "{{command}}")], limits=[(0.05, "red")]),
        panel("Redis, commands and errors", "cps", [(rate("dws_redis_command_seconds_count"), "commands"), (rate("dws_redis_command_errors_total", "command"), "error {{command}}"), (rate("dws_redis_keys_refused_total", "kind"), "refused {{kind}} key")]),
        panel("Redis, evictions", "short", [(f"max(dws_redis_may_evict{{{POD}}})", "may evict"), (f"max(increase(dws_redis_evicted_keys_total{{{POD}}}[$interval]))", "evicted")], limits=[(1, "red")]),
        panel("Routes", "cps", [(rate("dws_route_lookups_total", "outcome"), "look-ups {{outcome}}"), (rate("dws_route_writes_total", "outcome"), "writes {{outcome}}")]),
        panel("Token cache", "cps", [(rate("dws_token_cache_total", "outcome"), "{{outcome}}")]),
        panel("Configuration reloads and panics", "short", [(f"sum by (outcome) (increase(dws_config_reloads_total{{{POD}}}[$interval]))", "reload {{outcome}}"),
              (f"sum(increase(dws_task_panics_total{{{POD}}}[$interval]))", "panics"),
              (f"max(dws_config_keys_waiting{{{POD}}})", "keys that wait for a restart")]),
        panel("Log lines that were not written", "short", [(f"sum(increase(dws_log_lines_suppressed_total{{{POD}}}[$interval]))", "too many of a kind"),
              (f"sum(increase(dws_log_lines_dropped_total{{{POD}}}[$interval]))", "dropped"),
              (f"sum(increase(dws_log_audit_lines_dropped_total{{{POD}}}[$interval]))", "audit lines dropped")]),
        row("Peers"),
        panel("Peers known", "short", [(f"sum by (state) (dws_peers{{{POD}}})", "{{state}}")]),
        panel("Breakers", "short", [(f"max by (pod) (dws_grpc_circuitbreaker_open{{{POD}}})", "open to {{pod}}"),
              (f"sum by (pod) (increase(dws_grpc_circuitbreaker_tripped_total{{{POD}}}[$interval]))", "tripped {{pod}}")]),
        panel("Retries of forwards", "cps", [(rate("dws_grpc_forward_retry_attempts_total", "pod"), "tried again {{pod}}"),
              (rate("dws_grpc_forward_retry_success_total", "pod"), "saved {{pod}}"), (rate("dws_grpc_forward_retry_failure_total", "pod"), "failed {{pod}}")]),
        panel("Channels to peers", "short", [(f"sum by (instance) (dws_grpc_pool_size{{{POD}}})", "open {{instance}}"),
              (f"sum(increase(dws_grpc_pool_connections_created_total{{{POD}}}[$interval]))", "opened"),
              (f"sum by (reason) (increase(dws_grpc_pool_connections_closed_total{{{POD}}}[$interval]))", "closed {{reason}}")]),
        panel("Calls of peers refused", "cps", [(rate("dws_grpc_calls_refused_total", "reason"), "{{reason}}"),
              (rate("dws_grpc_connections_cut_total", "reason"), "connection cut {{reason}}")]),
        panel("Connections of others to the port for pods", "short", [(f"sum by (standing) (dws_grpc_connections{{{POD}}})", "{{standing}}")]),
        panel("What runs", "short", [(f"count by (version, revision) (dws_build_info{{{POD}}})", "{{version}} {{revision}}")]),
    ]


def trends():
    return [
        stat("Availability, 30 days (target: 99.95 %)", "percentunit", f"1 - max(job:dws_errors:ratio30d{{{JOB}}})", [(0.9995, "green")], low=True, width=6),
        stat("Error budget left", "percentunit", f"1 - max(job:dws_errors:ratio30d{{{JOB}}}) / 0.0005", [(0.1, "green")], low=True, width=6),
        stat("Connections of the limit", "percentunit", f"sum(dws_active_connections{{{POD}}}) / sum(dws_connections_limit{{{POD}}})", [(0.7, "orange"), (0.9, "red")], width=6),
        stat("CPU of the workers", "percentunit", f"sum(rate(dws_tokio_busy_seconds_total{{{POD}}}[$interval])) / sum(dws_tokio_workers{{{POD}}})", [(0.6, "orange"), (0.85, "red")], width=6),
        row("Capacity"),
        panel("Connections against the limit", "short", [(f"sum(dws_active_connections{{{POD}}})", "connections"), (f"sum(dws_connections_limit{{{POD}}})", "limit"),
              (f"predict_linear(job:dws_active_connections:sum{{{JOB},type=\"user\"}}[1d], 7 * 86400)", "users in a week, at this slope")]),
        panel("Saturation by pod", "percentunit", [(f"instance:dws_connection_saturation:ratio{{{POD}}}", "{{instance}}")], limits=[(0.8, "orange"), (0.95, "red")]),
        panel("Memory a pod", "bytes", [(f"process_resident_memory_bytes{{{POD}}}", "{{instance}}")]),
        panel("Memory a connection", "bytes", [(f"sum by (instance) (process_resident_memory_bytes{{{POD}}}) / sum by (instance) (dws_active_connections{{{POD}}} > 0)", "{{instance}}")]),
        panel("CPU a pod", "percentunit", [(f"rate(process_cpu_seconds_total{{{POD}}}[$interval])", "{{instance}}"),
              (f"rate(dws_tokio_busy_seconds_total{{{POD}}}[$interval]) / dws_tokio_workers{{{POD}}}", "of its workers {{instance}}")], limits=[(0.85, "red")]),
        panel("CPU a delivered event", "s", [(f"sum(rate(process_cpu_seconds_total{{{POD}}}[$interval])) / sum(rate(dws_messages_sent_total{{{POD},type=\"event\"}}[$interval]) > 0)", "seconds")]),
        panel("Memory budget", "bytes", [(f"sum by (kind) (dws_memory_used_bytes{{{POD}}})", "{{kind}}"), (f"sum(dws_memory_budget_bytes{{{POD}}})", "budget")]),
        panel("Slow sockets that gave way", "cps", [(rate("dws_memory_relieved_sockets_total", "how"), "{{how}}")]),
        panel("File descriptors", "short", [(f"process_open_fds{{{POD}}}", "open {{instance}}"), (f"process_max_fds{{{POD}}}", "at most {{instance}}")]),
        panel("Tasks, threads, run queue", "short", [(f"dws_tokio_alive_tasks{{{POD}}}", "tasks {{instance}}"), (f"process_threads{{{POD}}}", "threads {{instance}}"),
              (f"dws_tokio_global_queue_depth{{{POD}}}", "queued {{instance}}")]),
        row("Trends"),
        panel("P95 latencies", "s", [(f"job:dws_event_delivery_seconds:p95_5m{{{JOB}}}", "delivery"), (f"job:dws_event_end_to_end_seconds:p95_5m{{{JOB}}}", "end to end"),
              (f"job:dws_grpc_forward_seconds:p95_5m{{{JOB}}}", "forwarding"), (f"job:dws_redis_command_seconds:p95_5m{{{JOB}}}", "Redis"),
              (f"job:dws_connect_seconds:p95_5m{{{JOB}}}", "connect")], limits=[(0.1, "red")]),
        panel("Traffic", "cps", [(f"sum(job:dws_events_received:rate1m{{{JOB}}})", "events taken"), (f"sum(job:dws_events_written:rate1m{{{JOB}}})", "events written")]),
        panel("Share of failures, by window", "percentunit", [(f"job:dws_errors:ratio{window}{{{JOB}}}", window) for window in ("5m", "30m", "1h", "6h", "3d")], limits=[(0.0005, "red")]),
        panel("Routes wanted", "short", [(f"sum by (instance) (dws_routes_wanted{{{POD}}})", "{{instance}}")]),
    ]


def main():
    made = {
        "connections": board("dws-connections", connections()),
        "messages": board("dws-messages", messages()),
        "health": board("dws-health", health()),
        "trends": board("dws-trends", trends(), refresh="1m", since="now-7d"),
    }
    stale = []
    for name, content in made.items():
        path, text = HERE / "grafana" / f"{name}.json", json.dumps(content, indent=2) + "\n"
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                stale.append(path.name)
        else:
            path.write_text(text)
    if stale:
        sys.exit(f"not what build.py writes: {', '.join(stale)}; run dashboards/build.py")


main()
