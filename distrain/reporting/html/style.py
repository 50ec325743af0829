"""The look of `report.html`. Decides: colours and layout, light and dark, wide and narrow. Never: content."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f6f3; --card: #fff; --ink: #1c1d21; --soft: #74767e; --line: #e6e6e1; --accent: #2f6feb;
  --run-0: #2f6feb; --run-1: #e5622a; --run-2: #12946b; --run-3: #a24bd1; --run-4: #c99700; --run-5: #d23f6e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121316; --card: #1b1c21; --ink: #ececef; --soft: #93959f; --line: #2e3037; --accent: #6f9dff;
  --run-0: #6f9dff; --run-1: #ff8a57; --run-2: #3fc796;
  --run-3: #c88bf0; --run-4: #e6bb3a; --run-5: #f27a9f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 20px 64px; }
header { margin-bottom: 24px; }
.brand {
  margin: 0; color: var(--accent); font-size: 12px; font-weight: 600; letter-spacing: .12em;
  text-transform: uppercase;
}
h1 {
  margin: 2px 0 4px; font-size: 30px; line-height: 1.2; font-weight: 650; letter-spacing: -.015em;
  overflow-wrap: anywhere;
}
h2 { margin: 0 0 10px; font-size: 15px; font-weight: 600; }
.lead { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 18px 20px; }
section, details { margin: 0 0 16px; }
.empty { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.tile {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px 12px;
}
.figure { font-size: 25px; font-weight: 620; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.label { font-size: 13px; }
.hint { min-height: 18px; color: var(--soft); font-size: 12px; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px; }
figure { margin: 0; min-width: 0; }
figcaption { margin-bottom: 8px; font-weight: 600; overflow-wrap: anywhere; }
figure svg {
  display: block; width: 100%; height: auto; overflow: visible; font-variant-numeric: tabular-nums;
}
.axis { margin: 2px 0 0; color: var(--soft); font-size: 12px; text-align: right; }
.legend {
  display: flex; flex-flow: column wrap; justify-content: center; gap: 10px 22px; color: var(--soft);
}
.legend span { display: inline-flex; align-items: center; }
.dot { display: inline-block; width: 10px; height: 10px; margin-right: 8px; border-radius: 50%; flex: none; }
.legend .line { width: 24px; margin-right: 8px; border-top: 2px solid; }
.legend .dashed { border-top-style: dashed; }
.legend .dotted { border-top-style: dotted; }
.legend .faint { border-top-width: 1px; opacity: .55; }
.legend .ring { width: 11px; height: 11px; margin: 0 15px 0 6px; border: 2px solid; border-radius: 50%; }
.legend .tick { height: 11px; margin: 0 20px 0 10px; border-left: 2px solid; }
.legend .dot { margin: 0 15px 0 7px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
.figures { width: 100%; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td {
  padding: 6px 24px 6px 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
}
td { overflow-wrap: anywhere; }
th { font-weight: 500; color: var(--soft); }
tr:last-child > * { border-bottom: 0; }
tr > th:first-child { white-space: nowrap; }
td, tr + tr > th { color: var(--ink); }
.figures td, .figures th:not(:first-child) { text-align: right; padding: 6px 4px 6px 20px; }
.figures td:first-child { text-align: left; padding-left: 0; }
td.best, tr.best td { font-weight: 650; }
tr.best td:first-child { color: var(--accent); }
summary { cursor: pointer; font-weight: 600; }
details[open] summary { margin-bottom: 12px; }
@media (max-width: 520px) {
  main { padding: 24px 12px 40px; }
  h1 { font-size: 24px; }
  .card { padding: 14px; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .figure { font-size: 21px; }
}
"""
