import { Subject, WireFrame } from './types';

/** Values of one column of a frame, or none when the frame lacks it. */
export function column(frames: WireFrame[], frame: string, name: string): string[] {
  const found = frames.find((f) => f.name === frame)?.columns.find((c) => c.name === name);
  return (found?.values ?? []).map((v) => String(v ?? ''));
}

/** The models and views of a catalogue answer. */
export function subjects(frames: WireFrame[]): Subject[] {
  const kind = column(frames, 'subjects', 'subject');
  const description = column(frames, 'subjects', 'description');
  return column(frames, 'subjects', 'name').map((name, i) => ({
    subject: kind[i] === 'model' ? 'model' : 'view',
    name,
    description: description[i],
  }));
}
