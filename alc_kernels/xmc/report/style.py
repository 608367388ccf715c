"""The look of the page: light, readable in print and without telling colours apart."""

CSS = """
:root { --ink: #1b2430; --soft: #5b6675; --line: #dfe4ea; --pale: #f5f7f9; --blue: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
    sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 44px 28px 72px; }
header { border-bottom: 3px solid var(--blue); padding-bottom: 14px; margin-bottom: 26px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 44px 0 8px; letter-spacing: -.005em; }
h3 { font-size: 16px; margin: 22px 0 6px; }
p { margin: 8px 0 12px; max-width: 78ch; }
.subtitle { color: var(--soft); margin: 0; }
.small, figcaption, caption { color: var(--soft); font-size: 14px; }
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
caption { text-align: left; padding: 6px 0; caption-side: bottom; }
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
figure { margin: 14px 0 18px; }
figure img { width: 100%; height: auto; display: block; }
details { margin: 14px 0; }
summary { cursor: pointer; color: var(--blue); font-weight: 600; }
code, pre { font: 13.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--pale); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 16px; overflow-x: auto; }
.tag { display: inline-block; border-radius: 5px; padding: 1px 8px; font-size: 13px;
  font-weight: 600; white-space: nowrap; }
.tag.right { background: #e3f0f8; color: #00507d; }
.tag.wrong { background: #fcebdd; color: #8a3c00; }
.tag.review { background: #eceff3; color: #39424e; }
@media print {
  main { max-width: none; padding: 0; }
  body { font-size: 11pt; }
  table { font-size: 9.5pt; }
  h2 { break-after: avoid; }
  figure, .card, tr { break-inside: avoid; }
  .card, pre, tr.group td { background: #fff; }
  details > * { display: block; }
}
"""
