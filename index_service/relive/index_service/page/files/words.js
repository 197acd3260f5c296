// Numbers and times as people read them.

export const number = (value, digits = 4) =>
  value === null || value === undefined ? null
    : Number.isInteger(value) ? value.toLocaleString("en") : Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
export const percent = (share) => (share === null || share === undefined ? null : `${(100 * share).toFixed(1)} %`);
export const time = (us) => {
  if (us === null || us === undefined) return null;
  const date = new Date(us / 1000);
  return Number.isNaN(date.getTime()) ? String(us) : date.toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
};
export const seconds = (s) =>
  s < 0.05 ? "0 s" : s < 10 ? `${s.toFixed(1)} s` : s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
export const bytes = (count) => {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const unit = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(count, 1)) / 3));
  return `${number(count / 1000 ** unit, 3)} ${units[unit]}`;
};
export const outcome = (rate) => (rate === null || rate === undefined ? "open" : rate >= 0.5 ? "good" : "bad");
