// The state at a glance.
import { get } from "./api.js";
import { barsOf, chart, lineOf } from "./charts.js";
import { byId, details, el, put } from "./dom.js";
import { bytes, number, percent, seconds, time } from "./words.js";

export const showState = (state) => {
  const phase = byId("phase");
  const good = state.phase === "serving" && !state.stopped;
  const words = state.stopped ? "stopped" : state.phase;
  if (phase.textContent !== words) phase.textContent = words;
  phase.className = `badge ${good ? "good" : "bad"}`;
};

const card = (name, value, note) =>
  el("div", {}, el("dt", {}, name), el("dd", {}, el("div", { class: "number" }, value), el("div", { class: "note" }, note)));

export const refresh = async (state) => {
  if (!state.stats) {
    put(byId("warnings"), el("p", { class: "warning" }, `The service is ${state.phase}; it answers once it has caught up with the log.`));
    return;
  }
  const { stats, lag, freshness, success } = state;
  const index = stats.index;
  put(byId("warnings"), warnings(state));
  put(byId("cards"),
    card("Experiences", number(stats.size), `of at most ${number(stats.capacity)}; ${number(stats.additions)} were added`),
    card("Lag", lag.problem ? "unknown" : `${number(lag.events)} events`, lag.problem ? "the log does not answer" : lag.behind_s ? `what was in the log ${seconds(lag.behind_s)} ago can be found` : "fresh: all of the log can be found"),
    card("Freshness", freshness.events ? within(freshness.half_within_s) : "–", freshness.events ? `acknowledged to found, half of ${number(freshness.events)} since start; 99 %: ${within(freshness.most_within_s)}` : "no event since start"),
    card("Success rate", percent(success.rate) ?? "none yet", `mean of ${number(success.known)} with a known outcome`),
    card("Retrievals", number(stats.retrievals), `${number(stats.outcomes)} outcomes reported`),
    card("Index epoch", number(stats.epoch), index?.building ? `building the next one${index.progress ? `, ${percent(index.progress.share)}` : ""}` : `${number(stats.index_size)} can be found`),
    card("Set aside", number(stats.quarantined), `${number(stats.conflicts)} conflicts, ${number(stats.parked)} outcomes wait`));
  put(byId("index-details"), details([
    ["searched by", stats.backend],
    ["lists", index && (index.lists ? number(index.lists) : "none, all rows are compared")],
    ["recall measured", index && number(index.recall)],
    ["rows compared always", index && number(index.unlisted)],
    ["rebuild", index && (index.progress ? `${index.progress.phase}, ${percent(index.progress.share)} of all` : index.building ? "under way" : "none under way")],
    ["rebuilds since start", index && `${number(index.builds)}, ${number(index.failures)} failed`],
    ["last rebuild took", index?.last_seconds == null ? null : seconds(index.last_seconds)],
    ["last failure", index?.last_failure],
    ["GPU", index?.gpu && `${index.gpu.state} ${index.gpu.device}`.trim()],
    ["calls refused, too many", number(stats.calls_shed)],
  ]));
  put(byId("state-details"), details([
    ["evicted", number(stats.evictions)],
    ["removed", number(stats.removals)],
    ["retrievals not recorded", number(stats.retrievals_lost)],
    ["outcomes of nothing", number(stats.orphans)],
    ["priorities from trainers", `${number(stats.priority_updates)} taken, ${number(stats.stale_updates)} stale`],
    ["experiences on disk", bytes(stats.payload_bytes)],
    ["state on disk", bytes(stats.state_bytes)],
    ["snapshots beyond that", bytes(stats.snapshot_bytes)],
    ["recovered from", stats.recovery && `${stats.recovery.source}, ${number(stats.recovery.events_replayed)} events replayed in ${seconds(stats.recovery.seconds)}`],
    ["digest", stats.digest],
  ]));
  const { settings } = state;
  const positions = Object.entries(stats.positions).map(([p, at]) => `${p}: ${at}`);
  put(byId("log-details"), details([
    ["similarity", `${settings.similarity_metric}, ${settings.hybrid_mode}`],
    ["dimensions", `visual ${settings.visual_dim ?? "not fixed"}, text ${settings.text_dim ?? "not fixed"}`],
    ["gives way", settings.eviction_policy === "oldest" ? "the oldest" : "the lowest priority"],
    ["retrievals are recorded", settings.record_retrievals ? "yes" : "no"],
    ["log", stats.log],
    ["partitions answered", `${state.partitions.answered.length} of ${state.partitions.all}`],
    ["positions", positions.length > 8 ? `${positions.slice(0, 8).join(", ")}, …` : positions.join(", ")],
  ]));
  trend(state.trend);
  if (state.stopped) return;
  const charts = await get("api/charts");
  successByTime(charts.success);
  priorities(charts.priorities);
};

const within = (bound) => (bound === null ? "longer" : bound < 1 ? `≤ ${number(1000 * bound)} ms` : `≤ ${number(bound)} s`);

const warnings = ({ stopped, stats, lag }) => [
  stopped && `Reads are no longer kept up to date: ${stopped}`,
  lag.problem && `The log cannot be asked: ${lag.problem}`,
  lag.behind_s > 10 && `Reads are ${seconds(lag.behind_s)} behind the log.`,
  stats.quarantined > 0 && `${number(stats.quarantined)} events were set aside because they could not be folded; see relive quarantine list.`,
  stats.retrievals_lost > 0 && `${number(stats.retrievals_lost)} retrievals were not recorded because the log did not keep up.`,
  stats.index?.last_failure && `The last rebuild of the index that failed: ${stats.index.last_failure}`,
  stats.recovery?.passed_over?.length > 0 && `Recovery passed over: ${stats.recovery.passed_over.join("; ")}`,
].filter(Boolean).map((text) => el("p", { class: "warning" }, text));

const successByTime = ({ bars, shown, of }) => {
  const most = Math.max(1, ...bars.map((bar) => bar.experiences));
  const known = bars.filter((bar) => bar.success_rate !== null);
  chart(byId("success-chart"), {
    caption: "Success rate by when it was experienced",
    hint: `Line: mean success rate, 0 to 100 %. Bars: experiences, at most ${number(most)}.${shown < of ? ` ${number(shown)} of ${number(of)}, evenly spaced.` : ""}`,
    summary: known.length ? `Success rate from ${percent(known[0].success_rate)} of the earliest to ${percent(known.at(-1).success_rate)} of the latest experiences with a known outcome.` : "No outcome is known yet.",
    bars: barsOf(bars.map((bar) => bar.experiences / most), true),
    lines: lineOf(bars.map((bar) => bar.success_rate)),
    ends: { low: "0 %", high: "100 %", first: bars.length ? time(bars[0].from_us) : "", last: bars.length ? time(bars.at(-1).to_us) : "" },
    columns: [["From", (bar) => time(bar.from_us)], ["Experiences", (bar) => number(bar.experiences), true], ["Known", (bar) => number(bar.known), true], ["Success rate", (bar) => percent(bar.success_rate), true]],
    rows: bars,
  });
};

const priorities = ({ bars, shown, of }) => {
  const most = Math.max(1, ...bars.map((bar) => bar.count));
  const fullest = bars.find((bar) => bar.count === most);
  chart(byId("priority-chart"), {
    caption: "Priorities now",
    hint: `How many experiences have which priority, at most ${number(most)}.${shown < of ? ` ${number(shown)} of ${number(of)}, evenly spaced.` : ""}`,
    summary: fullest ? `Most experiences, ${number(most)}, have a priority from ${number(fullest.from)} to ${number(fullest.to)}.` : "No experiences.",
    bars: barsOf(bars.map((bar) => bar.count / most)),
    ends: { low: "0", high: number(most), first: bars.length ? number(bars[0].from) : "", last: bars.length ? number(bars.at(-1).to) : "" },
    columns: [["From", (bar) => number(bar.from), true], ["To", (bar) => number(bar.to), true], ["Experiences", (bar) => number(bar.count), true]],
    rows: bars,
  });
};

const trend = (points) => {
  const rates = points.map((point) => point.success_rate);
  const most = Math.max(1, ...points.map((point) => point.size));
  const first = points[0], last = points.at(-1);
  chart(byId("trend-chart"), {
    caption: "The last hour of this process",
    hint: `Line: mean success rate, 0 to 100 %. Bars: experiences, at most ${number(most)}.`,
    summary: last ? `${number(last.size)} experiences and a success rate of ${percent(last.success_rate) ?? "unknown"} at ${time(last.time_us)}.` : "No point yet.",
    bars: barsOf(points.map((point) => point.size / most), true),
    lines: lineOf(rates),
    ends: { low: "0 %", high: "100 %", first: first ? time(first.time_us) : "", last: last ? time(last.time_us) : "" },
    columns: [["Time", (point) => time(point.time_us)], ["Experiences", (point) => number(point.size), true], ["Lag", (point) => number(point.lag), true], ["Success rate", (point) => percent(point.success_rate), true]],
    rows: points.slice(-60),
  });
};
