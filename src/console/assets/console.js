// The console's only script. Pages are whole without it but for acting: forms go to the API from here, with the session's
// cookie and its CSRF token. Nothing secret is kept: a key that is shown leaves the page when its dialog closes.
'use strict';

const texts = JSON.parse(document.body.dataset.texts);
const locale = document.documentElement.lang;
const zone = knownZone(document.body.dataset.zone);

// The account's zone, as +08:00. A browser that does not know such zones writes its own.
function knownZone(offset) {
  try {
    return offset && new Intl.DateTimeFormat('en', { timeZone: offset }).resolvedOptions().timeZone;
  } catch {
    return undefined;
  }
}

function text(name, ...values) {
  const found = texts[name] ?? texts.internal;
  return found.replace(/\{(\d)\}/g, (_, at) => values[at]);
}

function all(selector, within = document) {
  return within.querySelectorAll(selector);
}

// For screen readers, without moving the focus.
function announce(said) {
  document.getElementById('said').textContent = said;
}

// ---- The API ----------------------------------------------------------------------------------------------------------

function csrfToken() {
  const pair = document.cookie.split('; ').find((one) => one.startsWith('__Host-tollgate-csrf='));
  return pair ? pair.slice(pair.indexOf('=') + 1) : '';
}

// What the API said no to.
class Refusal extends Error {
  constructor(code, body = {}) {
    super(code);
    this.code = code;
    this.body = body;
  }
}

async function ask(method, path, body, grant) {
  const headers = { 'X-CSRF-Token': csrfToken() };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (grant) headers['Step-Up-Grant'] = grant;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Refusal('offline');
  }
  const said = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refusal(said.code ?? 'internal', said);
  return said;
}

// A code becomes a grant. It is spent then, so the next dialog says when the next one comes.
async function stepUp(form, action, keyId) {
  const code = form.elements.code.value.trim();
  const body = keyId ? { action, key_id: keyId, code } : { action, code };
  const { grant } = await ask('POST', '/v1/step-up', body);
  form.elements.code.value = '';
  if (/^\d{6}$/.test(code.replaceAll(' ', ''))) spend();
  return grant;
}

const STEP_MS = 30_000;

function spend() {
  sessionStorage.setItem('next-code-at', String((Math.floor(Date.now() / STEP_MS) + 1) * STEP_MS));
}

// ---- Times ------------------------------------------------------------------------------------------------------------

const clocks = {
  day: { dateStyle: 'medium' },
  minute: { dateStyle: 'medium', timeStyle: 'short' },
  date: { month: 'short', day: 'numeric', timeZone: 'UTC' },
  hour: { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' },
};

function written(at, clock) {
  if (clock === 'ago') return ago(at);
  return new Intl.DateTimeFormat(locale, { timeZone: zone, ...(clocks[clock] ?? clocks.minute) }).format(at);
}

function ago(at) {
  const seconds = Math.round((at - Date.now()) / 1000);
  if (seconds > -45) return text('now');
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' });
  for (const [unit, length] of [['day', 86_400], ['hour', 3600], ['minute', 60]]) {
    if (-seconds >= length) return relative.format(Math.trunc(seconds / length), unit);
  }
  return relative.format(-1, 'minute');
}

function writeTimes(within) {
  for (const time of all('time[data-clock]', within)) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.valueOf())) time.textContent = written(at, time.dataset.clock);
  }
  for (const title of all('title[data-from]', within)) {
    const from = new Date(title.dataset.from);
    const to = new Date(from.valueOf() + 3_600_000);
    const hours = `${written(from, 'minute')} ${text('until_hour')} ${written(to, 'hour')}`;
    title.textContent = `${title.dataset.step === '1' ? hours : written(from, 'date')}: ${title.dataset.values}`;
  }
}

// ---- Copying ----------------------------------------------------------------------------------------------------------

async function copy(button, what) {
  try {
    await navigator.clipboard.writeText(what);
  } catch {
    announce(text('copy_failed'));
    return;
  }
  const before = button.dataset.label ?? button.textContent;
  button.dataset.label = before;
  button.textContent = text('copied');
  button.classList.add('copied');
  announce(text('copied'));
  setTimeout(() => {
    button.textContent = before;
    button.classList.remove('copied');
  }, 1600);
}

function copyFrom(button) {
  const { dataset } = button;
  if ('copy' in dataset) return copy(button, dataset.copy);
  if ('copyCode' in dataset) return copy(button, button.parentElement.querySelector('code').textContent);
  if ('copyKey' in dataset) return copy(button, button.parentElement.querySelector('[data-key]').textContent);
  if ('copyCodes' in dataset) {
    const codes = [...all('[data-codes] li', button.closest('dialog'))].map((one) => one.textContent);
    return copy(button, codes.join('\n'));
  }
  return undefined;
}

// ---- Dialogs ----------------------------------------------------------------------------------------------------------

// Timers of the dialog that is open; all end when it closes.
const timers = new Set();

function every(dialog, left, tell, end) {
  const started = Date.now();
  const tick = () => {
    const seconds = Math.ceil(left - (Date.now() - started) / 1000);
    if (seconds > 0) {
      tell(seconds);
      return;
    }
    clearInterval(timer);
    timers.delete(timer);
    end();
  };
  const timer = setInterval(tick, 250);
  timers.add(timer);
  tick();
  return timer;
}

function showStep(dialog, name) {
  for (const step of all('[data-step]', dialog)) step.hidden = step.dataset.step !== name;
  const target = dialog.querySelector(`[data-step="${name}"]`);
  target?.querySelector('input, [data-key], [data-close]')?.focus();
}

// Each dialog is one for all rows: it takes what it is about from the button that opens it.
function openDialog(button) {
  const dialog = document.getElementById(button.dataset.open);
  const { dataset } = button;
  dialog.about = { ...dataset };
  dialog.about.word = dataset.name || text('delete_word');
  for (const form of all('form', dialog)) form.reset();
  for (const place of all('[data-fill]', dialog)) place.textContent = dialog.about[place.dataset.fill] ?? '';
  for (const place of all('[data-fill-time]', dialog)) {
    const at = dialog.about[place.dataset.fillTime];
    place.textContent = at ? `${written(new Date(at), 'ago')} (${written(new Date(at), 'minute')})` : text('never');
  }
  for (const place of all('[data-when-used]', dialog)) place.hidden = (dataset.calls ?? '0') === '0';
  for (const place of all('.failure', dialog)) place.hidden = true;
  prefill[dialog.id]?.(dialog, dataset);
  if (dialog.querySelector('[data-step]')) showStep(dialog, 'ask');
  dialog.showModal();
  tellNextCode(dialog);
}

const prefill = {
  'edit-key'(dialog, about) {
    const { name, expires, disabled } = dialog.querySelector('form').elements;
    name.value = about.name;
    disabled.checked = about.disabled === 'true';
    expires.value = about.expiresAt ? localInput(new Date(about.expiresAt)) : '';
  },
  'allow-list'(dialog, about) {
    dialog.querySelector('textarea').value = about.ips;
  },
  limits(dialog, about) {
    const form = dialog.querySelector('form').elements;
    form.active_max.value = about.activeMax;
    form.daily_max.value = about.dailyMax;
  },
};

// An instant as a field of the kind datetime-local has it, and back.
function localInput(at) {
  const [, sign, hours, minutes] = /^([+-])(\d\d):(\d\d)$/.exec(zone ?? '') ?? [];
  const east = sign ? Number(`${sign}1`) * (Number(hours) * 60 + Number(minutes)) : -at.getTimezoneOffset();
  return new Date(at.valueOf() + east * 60_000).toISOString().slice(0, 16);
}

function fromInput(value) {
  return new Date(`${value}${zone ?? ''}`).toISOString();
}

// A code that was used a moment ago is not good again.
function tellNextCode(dialog) {
  const place = dialog.querySelector('.countdown');
  if (!place) return;
  const left = (Number(sessionStorage.getItem('next-code-at')) - Date.now()) / 1000;
  place.hidden = left <= 0;
  if (left > 0) every(dialog, left, (seconds) => { place.textContent = text('next_code', seconds); }, () => { place.textContent = text('code_ready'); });
}

// What a dialog showed is gone when it closes; a page that changed is loaded again.
function closed(dialog) {
  for (const timer of timers) clearInterval(timer);
  timers.clear();
  for (const place of all('[data-key], [data-secret], [data-codes], [data-receipt]', dialog)) place.textContent = '';
  for (const place of all('[data-qr]', dialog)) place.removeAttribute('src');
  for (const code of all('code[data-snippet]', dialog)) code.textContent = code.dataset.snippet;
  for (const form of all('form', dialog)) form.reset();
  if (dialog.goesTo) location.assign(dialog.goesTo);
  else if (dialog.changed) location.reload();
}

// ---- Forms ------------------------------------------------------------------------------------------------------------

function fail(form, refusal) {
  const place = form.querySelector('.failure');
  const { body } = refusal;
  if (refusal.code === 'unauthenticated') {
    location.reload();
    return;
  }
  const until = body.resets_at ? written(new Date(body.resets_at), 'minute') : '';
  place.textContent = text(refusal.code in texts ? refusal.code : 'internal', until);
  if (refusal.code === 'invalid_request' && body.detail) place.textContent += ` ${body.detail}`;
  place.hidden = false;
  const field = form.elements.code ?? form.elements.password;
  field?.select();
  if (body.retry_after_s) countDown(form, place, refusal.code, body.retry_after_s);
}

function countDown(form, place, code, seconds) {
  const said = place.textContent;
  const button = form.querySelector('[type="submit"]');
  const name = code === 'code_replayed' ? 'next_code' : 'try_in';
  button.disabled = true;
  every(form.closest('dialog'), seconds, (left) => { place.textContent = `${said} ${text(name, left)}`; }, () => {
    button.disabled = false;
    place.textContent = code === 'code_replayed' ? text('code_ready') : said;
    form.elements.code?.focus();
  });
}

async function submit(form) {
  // Enter and a click in one moment are one wish.
  if (form.hasAttribute('aria-busy')) return;
  const button = form.querySelector('[type="submit"]');
  const dialog = form.closest('dialog');
  form.querySelector('.failure').hidden = true;
  button.disabled = true;
  form.setAttribute('aria-busy', 'true');
  let enable = true;
  try {
    await acts[form.dataset.act](form, dialog);
  } catch (error) {
    const refusal = error instanceof Refusal ? error : new Refusal('internal');
    fail(form, refusal);
    enable = !refusal.body.retry_after_s;
    if (!(error instanceof Refusal)) throw error;
  } finally {
    if (enable) button.disabled = false;
    form.removeAttribute('aria-busy');
  }
}

// Closing loads the page again, which shows what has changed.
function finish(dialog) {
  dialog.changed = true;
  dialog.close();
}

async function change(dialog, path, body) {
  await ask('PATCH', path, body);
  finish(dialog);
}

const acts = {
  async 'sign-in'(form) {
    const { email, password } = form.elements;
    await ask('POST', '/v1/session', { email: email.value, password: password.value, cookie: true });
    location.assign(form.dataset.next);
  },

  async 'operator-sign-in'(form) {
    await ask('POST', '/v1/operator-session', { token: form.elements.token.value });
    location.assign(form.dataset.next);
  },

  async 'create-key'(form, dialog) {
    const name = form.elements.name.value.trim();
    const made = await ask('POST', '/v1/keys', name ? { name } : {});
    if (dialog.about.then) dialog.goesTo = dialog.about.then + made.id;
    else dialog.changed = true;
    dialog.querySelector('[data-key]').textContent = made.key;
    for (const code of all('code[data-snippet]', dialog)) {
      code.textContent = code.dataset.snippet.replaceAll('YOUR_API_KEY', made.key);
    }
    showStep(dialog, 'done');
  },

  async 'view-key'(form, dialog) {
    const { keyId } = dialog.about;
    const grant = await stepUp(form, 'view', keyId);
    const { key } = await ask('POST', `/v1/keys/${keyId}/view`, undefined, grant);
    if (!dialog.open) return;
    dialog.querySelector('[data-key]').textContent = key;
    showStep(dialog, 'done');
    const place = dialog.querySelector('[data-hides]');
    every(dialog, 60, (left) => { place.textContent = text('hides_in', left); }, () => {
      dialog.close();
      announce(text('hidden'));
    });
  },

  async 'edit-key'(form, dialog) {
    const { name, expires, disabled } = form.elements;
    const { about } = dialog;
    const body = {};
    if (name.value.trim() && name.value.trim() !== about.name) body.name = name.value.trim();
    if (disabled.checked !== (about.disabled === 'true')) body.status = disabled.checked ? 'disabled' : 'active';
    const before = about.expiresAt ? localInput(new Date(about.expiresAt)) : '';
    if (expires.value !== before) body.expires_at = expires.value ? fromInput(expires.value) : null;
    if (Object.keys(body).length === 0) dialog.close();
    else await change(dialog, `/v1/keys/${about.keyId}`, body);
  },

  async 'delete-key'(form, dialog) {
    const { keyId, word } = dialog.about;
    if (form.elements.word.value.trim() !== word) throw new Refusal('word_wrong');
    const grant = await stepUp(form, 'delete', keyId);
    const place = dialog.querySelector('[data-receipt]');
    place.textContent = text('deleting');
    dialog.changed = true;
    showStep(dialog, 'done');
    try {
      let receipt = await ask('DELETE', `/v1/keys/${keyId}?wait=200ms`, undefined, grant);
      showReceipt(place, receipt);
      while (receipt.revoked === 'pending' && dialog.open) {
        await new Promise((wake) => { setTimeout(wake, 300); });
        receipt = await ask('GET', `/v1/keys/${keyId}`);
        showReceipt(place, receipt);
      }
    } catch (refusal) {
      if (!dialog.querySelector('.receipt .headline')) showStep(dialog, 'ask');
      throw refusal;
    }
  },

  async 'allow-list'(form, dialog) {
    const ips = form.elements.ips.value.split(/[\s,]+/).filter(Boolean);
    await change(dialog, `/v1/clusters/${dialog.about.clusterId}`, { allow_ips: ips });
  },

  async 'change-password'(form, dialog) {
    const { password, new_password: fresh, repeat, code } = form.elements;
    if (fresh.value !== repeat.value) throw new Refusal('passwords_differ');
    const grant = code ? await stepUp(form, 'account') : undefined;
    await ask('POST', '/v1/password', { password: password.value, new_password: fresh.value }, grant);
    dialog.changed = true;
    showStep(dialog, 'done');
  },

  async 'totp-begin'(form, dialog) {
    const grant = await stepUp(form, 'account');
    const begun = await ask('POST', '/v1/totp', {}, grant);
    dialog.querySelector('[data-qr]').src = `data:image/svg+xml;utf8,${encodeURIComponent(begun.totp_qr_svg)}`;
    dialog.querySelector('[data-secret]').textContent = begun.totp_secret.replace(/.{4}(?=.)/g, '$& ');
    showStep(dialog, 'scan');
  },

  async 'totp-confirm'(form, dialog) {
    await ask('POST', '/v1/totp', { code: form.elements.code.value.trim() });
    spend();
    dialog.changed = true;
    showStep(dialog, 'done');
  },

  async 'recovery-codes'(form, dialog) {
    const grant = await stepUp(form, 'account');
    const { codes } = await ask('POST', '/v1/recovery-codes', undefined, grant);
    const list = dialog.querySelector('[data-codes]');
    list.replaceChildren(...codes.map((code) => element('li', code)));
    dialog.changed = true;
    showStep(dialog, 'done');
  },

  async 'member-add'(form, dialog) {
    const { email, password } = form.elements;
    await ask('POST', `/v1/accounts/${form.dataset.accountId}/members`, { email: email.value, password: password.value });
    finish(dialog);
  },

  async 'member-remove'(form, dialog) {
    await ask('DELETE', `/v1/accounts/${form.dataset.accountId}/members/${dialog.about.memberId}`);
    finish(dialog);
  },

  async 'change-account'(form, dialog) {
    const { accountId, field, value } = dialog.about;
    await change(dialog, `/v1/accounts/${accountId}`, { [field]: field === 'verified' ? value === 'true' : value });
  },

  async 'account-limits'(form, dialog) {
    const { active_max: active, daily_max: daily } = form.elements;
    const limits = { active_max: Number(active.value), daily_max: Number(daily.value) };
    await change(dialog, `/v1/accounts/${dialog.about.accountId}`, limits);
  },
};

function element(name, said, className) {
  const made = document.createElement(name);
  made.textContent = said;
  if (className) made.className = className;
  return made;
}

// Who has confirmed the delete, and how long that took; or for whom it waits.
function showReceipt(place, receipt) {
  const { gateways = [], lapsed = [], unconfirmed = [] } = receipt;
  const [done, total] = [gateways.length + lapsed.length, gateways.length + lapsed.length + unconfirmed.length];
  const lines = receipt.revoked === 'everywhere' ? verdict(receipt, total) : waiting(receipt, done, total);
  const list = element('ul', '', 'gateways');
  const line = (id, says, className) => {
    const item = element('li', '', className);
    item.append(element('span', id), element('span', says, 'took'));
    list.append(item);
  };
  for (const one of gateways) line(one.id, one.acknowledged_ms === undefined ? '' : `${one.acknowledged_ms} ms`, 'done');
  for (const id of lapsed) line(id, text('receipt_lapsed'), 'done');
  for (const id of unconfirmed.filter((one) => one !== 'store')) line(id, text('receipt_waiting'), 'waiting');
  if (list.children.length > 0) lines.push(list);
  if (receipt.revision !== undefined) lines.push(element('p', text('receipt_revision', receipt.revision), 'hint'));
  place.replaceChildren(...lines);
}

function verdict(receipt, total) {
  let name = total === 1 ? 'receipt_one' : 'receipt';
  if (receipt.took_ms === undefined) name = 'receipt_timeless';
  const headline = total === 0 ? text('receipt_none') : text(name, total, total, receipt.took_ms);
  return [element('p', headline, 'headline good'), element('p', text('receipt_text'))];
}

function waiting(receipt, done, total) {
  if (receipt.unconfirmed.includes('store')) return [element('p', text('receipt_store_away'), 'headline pending')];
  const bar = element('progress', '');
  bar.max = total;
  bar.value = done;
  const headline = element('p', text('receipt_pending', done, total), 'headline pending');
  bar.setAttribute('aria-label', headline.textContent);
  const lines = [headline, bar];
  if (receipt.at_latest_ms !== undefined) lines.push(element('p', text('receipt_bound', Math.ceil(receipt.at_latest_ms / 1000)), 'hint'));
  return lines;
}

// Buttons that act without a form.
const buttons = {
  async 'sign-out'() {
    await ask('DELETE', '/v1/session');
    location.assign('/console/sign-in');
  },
  async 'operator-sign-out'() {
    await ask('DELETE', '/v1/operator-session');
    location.assign('/console/operator/sign-in');
  },
  async 'end-other-sessions'() {
    await ask('DELETE', '/v1/sessions');
    location.reload();
  },
};

async function press(button) {
  button.disabled = true;
  try {
    await buttons[button.dataset.act]();
  } catch (error) {
    button.disabled = false;
    // Whoever is signed out already gets to the sign-in page by loading this one.
    if (error instanceof Refusal && error.code === 'unauthenticated') location.reload();
    else announce(text(error.code ?? 'internal'));
  }
}

// ---- Tabs -------------------------------------------------------------------------------------------------------------

function choose(tab) {
  for (const other of all('[role="tab"]', tab.parentElement)) {
    const chosen = other === tab;
    other.setAttribute('aria-selected', String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute('aria-controls')).hidden = !chosen;
  }
  tab.focus();
}

function moveTab(event) {
  const tabs = [...all('[role="tab"]', event.target.parentElement)];
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by) choose(tabs[(tabs.indexOf(event.target) + by + tabs.length) % tabs.length]);
}

// ---- Watching ---------------------------------------------------------------------------------------------------------

// A part of the page that shows what goes on now: it is asked for again while nobody is busy with it.
function watch(part) {
  setInterval(async () => {
    if (document.hidden || document.querySelector('dialog[open]')) return;
    const answer = await fetch(location.href).catch(() => undefined);
    if (!answer?.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const fresh = page.querySelector('[data-refresh]');
    if (!fresh || document.querySelector('dialog[open]')) return;
    writeTimes(fresh);
    if (fresh.innerHTML !== part.innerHTML) part.replaceChildren(...fresh.childNodes);
  }, part.dataset.refresh * 1000);
}

// ---- The page ---------------------------------------------------------------------------------------------------------

document.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if ('open' in button.dataset) openDialog(button);
  else if ('close' in button.dataset) button.closest('dialog').close();
  else if (button.matches('.copy')) copyFrom(button);
  else if (button.matches('[role="tab"]')) choose(button);
  else if ('act' in button.dataset) press(button);
});
document.addEventListener('submit', (event) => {
  if (!('act' in event.target.dataset)) return;
  event.preventDefault();
  submit(event.target);
});
document.addEventListener('keydown', (event) => {
  if (event.target.matches('[role="tab"]')) moveTab(event);
});
for (const dialog of all('dialog')) dialog.addEventListener('close', () => closed(dialog));
for (const part of all('[data-refresh]')) watch(part);
for (const form of all('form[data-filter]')) {
  form.classList.add('by-itself');
  form.addEventListener('change', () => form.requestSubmit());
}
writeTimes(document);
setInterval(() => writeTimes(document), 30_000);
