// Walks through the host page in headless Chromium and prints what it met:
// node browser/drive.mjs URL FOLDER-FOR-SCREENSHOTS [DASHBOARD ...]
// With uids of dashboards it takes a picture of each of them instead.
import path from 'node:path';
import { chromium } from 'playwright-core';

const [url, out, ...dashboards] = process.argv.slice(2);

// walk goes through the page in a browser of its own.
async function walk() {
  const browser = await chromium.launch({ executablePath: process.env.KEDGE_CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });
  const met = { errors: [], abroad: [] };
  const page = await browser.newPage({ viewport: { width: 1360, height: 900 } });
  page.setDefaultTimeout(40_000);
  page.on('pageerror', (e) => met.errors.push(String(e)));
  page.on('request', (r) => /^(data|blob|about):/.test(r.url()) || new URL(r.url()).hostname === '127.0.0.1' || met.abroad.push(r.url()));
  const shot = (name) => page.screenshot({ path: path.join(out, `${name}.png`), fullPage: true });
  const open = (what, wait) => page.goto(`${url}/?page=${what}`).then(() => page.waitForSelector(wait));
  const settled = () => page.waitForFunction(() => [...document.querySelectorAll('[data-panel]')].every((p) => p.dataset.state !== 'loading'));

  try {
    met.drawn = {};
    for (const uid of dashboards) {
      await open(`dashboard&uid=${uid}`, '[data-panel]');
      await settled();
      await page.waitForTimeout(500);
      await shot(uid);
      met.drawn[uid] = await page.$$eval('[data-panel]', (all) => all.map((p) => ({ title: p.dataset.panel, state: p.dataset.state, rows: Number(p.dataset.rows), text: p.dataset.state === 'error' ? p.innerText : '' })));
    }
    if (dashboards.length > 0) {
      return met;
    }
    await open('config', '[aria-label="API key"]');
    await page.getByLabel('API key').fill('opensesame');
    await page.getByLabel('Namespace').fill('team');
    met.config = JSON.parse(await page.textContent('[data-options]'));
    await shot('config');

    await open('query', '[aria-label="Kind"]');
    await settled();
    await page.getByLabel('Kind').click();
    await page.getByText('Summary over time', { exact: true }).click();
    await page.getByLabel('Subject').click();
    await page.getByText('driver_stats', { exact: true }).click();
    await page.getByLabel('Columns').click();
    await page.getByText('acceptance_rate', { exact: true }).first().click();
    await page.waitForSelector('[data-panel="summary"][data-state="done"]');
    await page.mouse.click(1200, 880);
    met.query = JSON.parse(await page.textContent('[data-query]'));
    await shot('query');

    const write = async (text) => {
      await page.click('.monaco-editor .view-lines');
      await page.keyboard.press('Control+a');
      await page.keyboard.insertText(text);
      await page.keyboard.press('Control+Shift+End'); // what the editor closed by itself
      await page.keyboard.press('Delete');
      await page.mouse.click(1200, 880);
    };
    await page.getByLabel('JSON').first().click({ force: true }); // older packages label the switch twice
    await page.waitForSelector('.monaco-editor .view-lines');
    await write('{"kind": "freshness"');
    met.refused = await page.getByText('Not a request').first().textContent();
    await write('{"kind": "freshness", "values": ["seconds"]}');
    await page.waitForSelector('[data-panel="freshness"][data-state="done"]');
    met.code = JSON.parse(await page.textContent('[data-query]'));
    await shot('code');

    for (const [name, what] of [['panels', 'panels'], ['panels-light', 'panels&light']]) {
      await open(what, '[data-panel]');
      await settled();
      await page.waitForTimeout(300); // uPlot draws in an animation frame
      await shot(name);
    }
    met.panels = await page.$$eval('[data-panel]', (all) =>
      all.map((p) => ({ kind: p.dataset.panel, state: p.dataset.state, rows: Number(p.dataset.rows), text: p.innerText, canvases: p.querySelectorAll('canvas').length }))
    );
  } catch (e) {
    met.errors.push(String(e.stack));
    // A browser that does not even take a picture has stopped by itself, which is no fault of the page.
    await shot('failed').catch((again) => { met.hung = String(again.message); });
  } finally {
    await browser.close();
  }
  return met;
}

let met = await walk();
if (met.hung) {
  console.error('the browser hung and is started once more:', met.errors, met.hung);
  met = await walk();
  if (met.hung) met.errors.push(`no picture of it: ${met.hung}`);
}
console.log(JSON.stringify(met));
