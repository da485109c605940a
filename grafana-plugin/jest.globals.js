// What @grafana/ui expects of a browser and jsdom lacks.
const util = require('util');
Object.assign(globalThis, { TextEncoder: util.TextEncoder, TextDecoder: util.TextDecoder });
// React's scheduler posts to itself; node's own channel would keep jest from ending.
globalThis.MessageChannel ??= class {
  port1 = { onmessage: null, close() {} };
  port2 = { postMessage: () => setTimeout(() => this.port1.onmessage?.({}), 0), close() {} };
};
globalThis.ResizeObserver ??= class {
  observe() {}
  unobserve() {}
  disconnect() {}
};
globalThis.IntersectionObserver ??= globalThis.ResizeObserver;
Object.defineProperty(globalThis, 'matchMedia', {
  writable: true,
  value: (media) => ({ matches: false, media, addListener() {}, removeListener() {}, addEventListener() {}, removeEventListener() {}, dispatchEvent() {} }),
});
HTMLCanvasElement.prototype.getContext = () => null;
