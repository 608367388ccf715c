"""The look of the page: readable on a phone, in the dark, in print, and without telling colours."""

CSS = """
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5b6675; --line: #dfe4ea;
  --pale: #f5f7f9; --paper: #fff; --blue: #0072b2; --right: #e3f0f8; --right-ink: #00507d;
  --wrong: #fcebdd; --wrong-ink: #8a3c00; --review: #eceff3; --review-ink: #39424e; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
    sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 44px 28px 72px; }
header { border-bottom: 3px solid var(--blue); padding-bottom: 14px; margin-bottom: 26px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 44px 0 8px; letter-spacing: -.005em; }
h3 { font-size: 16px; margin: 22px 0 6px; }
p { margin: 8px 0 12px; max-width: 78ch; }
.subtitle { color: var(--soft); margin: 0; }
.small, figcaption, .caption { color: var(--soft); font-size: 14px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 14px;
  margin: 18px 0 8px; }
.card { border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px;
  background: var(--pale); }
.card .value { font-size: 30px; font-weight: 650; line-height: 1.15;
  font-variant-numeric: tabular-nums; }
.card .name { font-weight: 600; margin-top: 2px; }
.card .note { color: var(--soft); font-size: 14px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 10px 0 6px; font-size: 14.5px;
  font-variant-numeric: tabular-nums; }
.caption { margin: 6px 0 14px; max-width: 110ch; }
th, td { padding: 7px 10px; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: baseline; }
th { font-weight: 600; color: var(--soft); border-bottom: 2px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
table.text th, table.text td { text-align: left; }
table.text td.number { text-align: right; white-space: nowrap; }
td .range { display: block; color: var(--soft); font-size: 12.5px; white-space: nowrap; }
td.best { font-weight: 700; }
td.best .range { font-weight: 400; }
tr.group td { background: var(--pale); font-weight: 600; padding-left: 10px; }
.lead { font-size: 18px; }
figure { margin: 14px 0 18px; }
figure img { width: 100%; height: auto; display: block; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr));
  gap: 8px 20px; }
figcaption { margin-top: 6px; max-width: 78ch; }
details { margin: 14px 0; }
summary { cursor: pointer; color: var(--blue); font-weight: 600; }
code, pre { font: 13.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--pale); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 16px; overflow-x: auto; }
.tag { display: inline-block; border-radius: 5px; padding: 1px 8px; font-size: 13px;
  font-weight: 600; white-space: nowrap; }
.tag.right { background: var(--right); color: var(--right-ink); }
.tag.wrong { background: var(--wrong); color: var(--wrong-ink); }
.tag.review { background: var(--review); color: var(--review-ink); }
@media (max-width: 640px) {
  main { padding: 24px 16px 48px; }
  h1 { font-size: 24px; }
  .cards { grid-template-columns: 1fr 1fr; gap: 10px; }
  .card { padding: 10px 12px; }
  .card .value { font-size: 24px; }
  th, td { padding: 6px 7px; }
  table.text td { min-width: 92px; overflow-wrap: anywhere; }
  table:not(.text) tr:not(.group) td:first-child { position: sticky; left: 0;
    background: var(--paper); background-clip: padding-box; }
  table.stacked thead { display: none; }
  table.stacked tr { display: block; padding: 8px 0; border-bottom: 1px solid var(--line); }
  table.stacked td { display: block; border: 0; padding: 2px 0; }
  table.stacked td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); }
}
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ef; --soft: #a0acba; --line: #333d49; --pale: #1d252e; --paper: #12181f;
    --blue: #6cb8ec; --right: #0f3a57; --right-ink: #bfe3fb; --wrong: #53290c;
    --wrong-ink: #ffd2b0; --review: #2b343f; --review-ink: #ccd5df; }
  /* Pictures are drawn for white paper without a background: their lightness is turned over. */
  figure img { filter: invert(1) hue-rotate(180deg); }
}
@media print {
  .pictures { grid-template-columns: 1fr 1fr; }
  main { max-width: none; padding: 0; }
  body { font-size: 11pt; }
  table { font-size: 9.5pt; }
  h2 { break-after: avoid; }
  figure, .card, tr { break-inside: avoid; }
  .card, pre, tr.group td { background: #fff; }
  details > * { display: block; }
}
"""
